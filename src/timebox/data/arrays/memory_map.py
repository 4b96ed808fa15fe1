"""Memory-mapped image arrays, so that data sets may be larger than memory."""

import errno
import math
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError

_CHUNK_IMAGES = 1024


def take_images(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """images[indices]; of memory-mapped images a view of a prefix, else a new memory map in the same folder.

    Raises DataError where the disk does not have room.
    """
    if not isinstance(images, np.memmap) or images.filename is None:
        return images[indices]
    if np.array_equal(indices, np.arange(len(indices))):
        return images[: len(indices)]
    folder, shape = Path(str(images.filename)).parent, (len(indices), *images.shape[1:])
    try:  # the file is removed at once, so that its blocks go with the array
        with tempfile.NamedTemporaryFile(prefix=".images-", dir=folder if folder.is_dir() else None) as file:
            allocate_file(Path(file.name), math.prod(shape))
            selected = np.memmap(file.name, np.uint8, "r+", shape=shape)
    except OSError as error:
        raise DataError(f"{folder}: no room for {len(indices):,} images: {error.strerror or error}") from error
    for start in range(0, len(indices), _CHUNK_IMAGES):
        selected[start : start + _CHUNK_IMAGES] = images[indices[start : start + _CHUNK_IMAGES]]
    return selected


def allocate_file(file: Path, num_bytes: int) -> None:
    """Create a file of `num_bytes` with its blocks allocated, so that a full disk raises OSError here and not later."""
    with file.open("wb") as stream:
        stream.truncate(num_bytes)
        if num_bytes and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(stream.fileno(), 0, num_bytes)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # the file system allocates late
                    raise
