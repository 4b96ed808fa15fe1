"""Images that lie on disk and are mapped into memory, as far as there is room for them."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError

_CHUNK_IMAGES = 1024


def taken(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """images[indices]; of images on disk, on disk beside them, and the first few as they lie there.

    Raises DataError where the disk has no room for them.
    """
    if not isinstance(images, np.memmap) or images.filename is None:
        return images[indices]
    if np.array_equal(indices, np.arange(len(indices))):
        return images[: len(indices)]
    folder = Path(str(images.filename)).parent
    try:
        chosen = _unnamed(folder, (len(indices), *images.shape[1:]))
    except OSError as error:
        raise DataError(f"{folder}: no room for {len(indices):,} images: {error.strerror or error}") from error
    for start in range(0, len(indices), _CHUNK_IMAGES):
        chosen[start : start + _CHUNK_IMAGES] = images[indices[start : start + _CHUNK_IMAGES]]
    return chosen


def reserve(file: Path, num_bytes: int) -> None:
    """Make a file of that length whose blocks are there: a full disk shows here, not when the map is written to.

    Raises OSError where there is no room.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(descriptor, num_bytes)
        if num_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, num_bytes)
    finally:
        os.close(descriptor)


def _unnamed(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array in a file that has no name, so that whatever happens nothing is left of it. Raises OSError."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    handle, name = tempfile.mkstemp(prefix=".images-", dir=folder if folder.is_dir() else None)
    os.close(handle)
    try:
        reserve(Path(name), math.prod(shape))
        return np.memmap(name, np.uint8, "r+", shape=shape)
    finally:
        Path(name).unlink()
