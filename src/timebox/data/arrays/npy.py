"""Reading one array in the .npy format without trusting it: no pickle, no evaluated header, no allocation before the
header agrees with the bytes there are.

Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import math
import re
import sys
from gzip import GzipFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\dL,\s]*)\),?\s*\}\s*", re.ASCII
)
_MAX_DIMS = 32
_PIECE_BYTES = 1 << 16


def read_npy(stream: IO[bytes], num_bytes: int) -> NDArray[np.generic]:
    """The array in a .npy stream that has `num_bytes` from here to its end.

    Arrays of numbers, truth values, bytes and strings are read. Raises ValueError with the reason for anything else,
    and MemoryError where the array does not fit.
    """
    lead = stream.read(len(_MAGIC) + 2)
    width = {1: 2, 2: 4, 3: 4}.get(lead[-2]) if len(lead) == len(_MAGIC) + 2 and lead.startswith(_MAGIC) else None
    if width is None:
        raise ValueError("it is no array in the .npy format")
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes, more than {_MAX_HEADER_BYTES:,}")
    dtype, shape, column_major = _parse_header(stream.read(length).decode("latin1"))
    room = num_bytes - len(lead) - width - length
    if (size := math.prod(shape) * dtype.itemsize) != room:
        cut = "truncated" if size > room else "longer than its array"
        raise ValueError(f"it is {cut}: its header claims {size:,} bytes, but {max(room, 0):,} follow")
    data = np.empty(size, np.uint8)
    if (count := fill(data, stream)) < size:
        raise ValueError(f"it is truncated: its header claims {size:,} bytes, but {count:,} follow")
    if dtype.kind == "U" and size and data.view(dtype.str[0] + "u4").max() > sys.maxunicode:
        raise ValueError("it holds a character that is none")
    return data.view(dtype).reshape(shape, order="F" if column_major else "C")


def fill(array: NDArray[np.uint8], stream: IO[bytes] | GzipFile) -> int:
    """Read into uint8 (N,) until it is full or the stream ends; returns the bytes read.

    In pieces: zipfile holds what it is asked for three times over.
    """
    view, position = array.data, 0
    while position < len(view):
        count = stream.readinto(view[position : position + _PIECE_BYTES])  # type: ignore[union-attr]
        if not count:
            break
        position += count
    return position


def _parse_header(text: str) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    if (match := _HEADER.fullmatch(text)) is None:
        raise ValueError("its header is not that of an array of numbers or strings")
    code, column_major, lengths = match.groups()
    if "O" in code:
        raise ValueError("it holds Python objects, which are never unpickled")
    try:
        dtype = np.dtype(code)
        shape = tuple(int(length.strip().removesuffix("L")) for length in lengths.split(",") if length.strip())
    except (TypeError, ValueError) as error:
        raise ValueError(f"its header cannot be understood: {' '.join(str(error).split())}") from error
    if dtype.kind not in "biufSU" or dtype.itemsize == 0:
        raise ValueError(f"it holds {code!r}, neither numbers nor strings")
    if len(shape) > _MAX_DIMS or any(length > np.iinfo(np.int64).max for length in shape):
        raise ValueError("its shape is impossible")
    return dtype, shape, column_major == "True"
