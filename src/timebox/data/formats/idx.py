"""IDX files as MNIST has them, plain or gzipped: train-images-idx3-ubyte(.gz) and the others in one folder.

Source of the format: http://yann.lecun.com/exdb/mnist/
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.npy import read_into
from timebox.data.dataset import LoadedData
from timebox.data.reading.array_splits import ArraySplit, as_images, loaded_from_arrays, splits_from_arrays
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, short_name
from timebox.errors import DataError
from timebox.files import open_regular

_FILE = re.compile(r"(train|val|valid|validation|test|t10k)-(images|labels)[-.]idx([134])-ubyte(\.gz)?", re.IGNORECASE)
_SPLITS = {"valid": "val", "validation": "val", "t10k": "test"}
_UBYTE = 0x08
_MAX_DEFLATE_RATIO = 1032  # the highest ratio that the deflate format permits


class Idx:
    name = "IDX files as of MNIST"

    def matches(self, path: Path) -> bool:
        return "train images" in _files(path)

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        files = _files(path)
        splits: dict[str, ArraySplit] = {}
        for split in ("train", "val", "test"):
            if (images_file := files.get(f"{split} images")) is None:
                continue
            if (labels_file := files.get(f"{split} labels")) is None:
                raise DataError(f"{images_file} has no labels: the {split} file -labels-idx1-ubyte is missing")
            images = as_images(_read_idx(images_file, (3, 4), options), f"{images_file}: its array")
            splits[split] = ArraySplit(images, _read_idx(labels_file, (1,), options).astype(np.int64))
        folder = path if path.is_dir() else path.parent
        why = f"it holds {abbreviate_list([file.name for file in files.values()])}"
        return loaded_from_arrays(short_name(folder), "IDX files", splits_from_arrays(splits, None, str(path)), why)


def _files(path: Path) -> dict[str, Path]:
    """The IDX files in the folder `path`, or beside the IDX file `path`: "train images" -> file, plain before .gz."""
    if path.is_file() and not _FILE.fullmatch(path.name):
        return {}
    files: dict[str, Path] = {}
    for file in sorted((path if path.is_dir() else path.parent).iterdir()):
        if (match := _FILE.fullmatch(file.name)) and file.is_file():
            split = match[1].lower()
            files.setdefault(f"{_SPLITS.get(split, split)} {match[2].lower()}", file)
    return files


def _read_idx(file: Path, allowed_dims: tuple[int, ...], options: ReadOptions) -> NDArray[np.uint8]:
    """Read the array of an IDX file, after checking its header against the size of the file."""
    is_gzipped = file.suffix.lower() == ".gz"
    try:
        with open_regular(file) as packed, gzip.GzipFile(fileobj=packed) if is_gzipped else packed as stream:
            magic = stream.read(4)
            if len(magic) < 4 or magic[:3] != bytes([0, 0, _UBYTE]) or magic[3] not in allowed_dims:
                dims = " or ".join(map(str, allowed_dims))
                raise DataError(f"{file}: not an IDX file of bytes in {dims} dimensions (it begins with {magic!r})")
            header = stream.read(4 * magic[3])
            if len(header) < 4 * magic[3]:
                raise DataError(f"{file}: truncated in its header")
            shape = struct.unpack(f">{magic[3]}I", header)
            size, packed_bytes = math.prod(shape), file.stat().st_size
            if size > packed_bytes * (_MAX_DEFLATE_RATIO if is_gzipped else 1):
                raise DataError(f"{file}: truncated: its header claims {size:,} bytes, more than the file can hold")
            if is_gzipped:
                check_unpacked(size, packed_bytes, str(file))
            options.check_memory(size, f"an array of {'x'.join(map(str, shape))}", file)
            array = np.empty(size, dtype=np.uint8)
            if (length := read_into(array, stream)) < size:
                raise DataError(f"{file}: truncated: its header claims {size:,} bytes, but {length:,} follow")
            if stream.read(1):
                raise DataError(f"{file}: longer than the {size:,} bytes its header claims")
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"{file}: truncated or damaged ({error})") from error
    try:
        return array.reshape(shape)
    except ValueError as error:  # of an empty array the header may hold any other length
        raise DataError(f"{file}: its header claims the impossible shape {shape}") from error
