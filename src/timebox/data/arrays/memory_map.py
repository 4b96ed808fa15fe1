"""Memory-mapped image arrays, so that data sets may be larger than memory."""

import math
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError

_CHUNK_IMAGES = 1024


def take_images(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """images[indices]. Of memory-mapped images, a new memory map in the same folder, or a view where it is a prefix.

    Raises DataError where the disk does not have room.
    """
    if not isinstance(images, np.memmap) or images.filename is None:
        return images[indices]
    if np.array_equal(indices, np.arange(len(indices))):
        return images[: len(indices)]
    folder = Path(str(images.filename)).parent
    try:
        selected = _create_unnamed_map(folder, (len(indices), *images.shape[1:]))
    except OSError as error:
        raise DataError(f"{folder}: no room for {len(indices):,} images: {error.strerror or error}") from error
    for start in range(0, len(indices), _CHUNK_IMAGES):
        selected[start : start + _CHUNK_IMAGES] = images[indices[start : start + _CHUNK_IMAGES]]
    return selected


def allocate_file(file: Path, num_bytes: int) -> None:
    """Create a file of `num_bytes` with its blocks allocated, so that a full disk fails here and not in a memory map.

    Raises OSError where there is no room.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(descriptor, num_bytes)
        if num_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, num_bytes)
    finally:
        os.close(descriptor)


def _create_unnamed_map(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A memory map of a file that is already unlinked, so that it goes with the array. Raises OSError."""
    if 0 in shape:
        return np.empty(shape, np.uint8)
    handle, name = tempfile.mkstemp(prefix=".images-", dir=folder if folder.is_dir() else None)
    os.close(handle)
    try:
        allocate_file(Path(name), math.prod(shape))
        return np.memmap(name, np.uint8, "r+", shape=shape)
    finally:
        Path(name).unlink()
