"""Safe readers of .npy and .npz: no pickle, no eval of headers, no allocation before a header is checked.

Source of the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import lzma
import math
import re
import sys
import zipfile
import zlib
from gzip import GzipFile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from timebox.data.reading.decompression_limits import check_unpacked
from timebox.errors import DataError
from timebox.machine import memory_shortage

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 10_000
_HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'([^']*)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\dL,\s]*)\),?\s*\}\s*", re.ASCII
)
_MAX_DIMS = 32
# Errors that zipfile raises for damaged, encrypted and unsupported archives.
ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RuntimeError, MemoryError)
_CHUNK_BYTES = 1 << 16


def read_npy(stream: IO[bytes], num_bytes: int) -> NDArray[np.generic]:
    """Read an array of numbers, booleans, bytes or strings from a .npy stream of `num_bytes`.

    Raises ValueError with the reason for any other or damaged content, and MemoryError where the array does not fit.
    """
    prefix = stream.read(len(_MAGIC) + 2)
    width = {1: 2, 2: 4, 3: 4}.get(prefix[-2]) if len(prefix) == len(_MAGIC) + 2 and prefix.startswith(_MAGIC) else None
    if width is None:
        raise ValueError("it is not an array in the .npy format")
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes, more than {_MAX_HEADER_BYTES:,}")
    dtype, shape, column_major = _parse_header(stream.read(length).decode("latin1"))
    remaining = num_bytes - len(prefix) - width - length
    if (size := math.prod(shape) * dtype.itemsize) != remaining:
        fault = "truncated" if size > remaining else "longer than its array"
        raise ValueError(f"it is {fault}: its header claims {size:,} bytes, but {max(remaining, 0):,} follow")
    if reason := memory_shortage(size, "its array"):
        raise ValueError(f"it {reason}")
    data = np.empty(size, np.uint8)
    if (count := read_into(data, stream)) < size:
        raise ValueError(f"it is truncated: its header claims {size:,} bytes, but {count:,} follow")
    if dtype.kind == "U" and size and data.view(dtype.str[0] + "u4").max() > sys.maxunicode:
        raise ValueError("it holds an invalid Unicode character")
    return data.view(dtype).reshape(shape, order="F" if column_major else "C")


def read_into(array: NDArray[np.uint8], stream: IO[bytes] | GzipFile) -> int:
    """Read a stream into a uint8 (N,) array until the array is full or the stream ends; returns the bytes read.

    Reads in chunks: zipfile holds three copies of what a call requests.
    """
    view, position = array.data, 0
    while position < len(view):
        count = stream.readinto(view[position : position + _CHUNK_BYTES])  # type: ignore[union-attr]
        if not count:
            break
        position += count
    return position


def _parse_header(text: str) -> tuple[np.dtype[np.generic], tuple[int, ...], bool]:
    if (match := _HEADER.fullmatch(text)) is None:
        raise ValueError("its header is not that of an array of numbers or strings")
    code, column_major, lengths = match.groups()
    if "O" in code:
        raise ValueError("it holds Python objects, which are not unpickled: save it as an array of numbers or texts")
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


class ArrayArchive:
    """The arrays of an open .npz archive. Names are in lower case; each array is read on request.

    Raises DataError where two names differ only in case, or the archive exceeds the decompression limits.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name.lower() in self._members:
                raise DataError(f"{path}: holds {name} twice")
            self._members[name.lower()] = member
        packed_bytes = path.stat().st_size
        check_unpacked(sum(member.file_size for member in self._members.values()), packed_bytes, str(path))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def original_name(self, name: str) -> str:
        """A name with the case it has in the archive."""
        return self._members[name].filename.removesuffix(".npy")

    def names(self) -> list[str]:
        """All names with the case they have in the archive."""
        return [self.original_name(name) for name in self._members]

    def read(self, name: str) -> NDArray[np.generic]:
        """Read one array of numbers or strings. Raises DataError for any other content."""
        member = self._members[name]
        try:
            with self._archive.open(member) as stream:
                return read_npy(stream, member.file_size)
        except (ValueError, MemoryError) as error:
            reason = str(error) or "it does not fit into memory"
            raise DataError(f"{self.path}: {self.original_name(name)} cannot be read: {reason}") from error
