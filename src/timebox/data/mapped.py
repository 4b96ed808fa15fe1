"""Images that lie on disk and are mapped into memory, as far as there is room for them."""

import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_CHUNK_IMAGES = 1024


def taken(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    """images[indices]; of images on disk, on disk beside them."""
    if not isinstance(images, np.memmap) or images.filename is None:
        return images[indices]
    chosen = _unnamed(Path(str(images.filename)).parent, (len(indices), *images.shape[1:]))
    for start in range(0, len(indices), _CHUNK_IMAGES):
        chosen[start : start + _CHUNK_IMAGES] = images[indices[start : start + _CHUNK_IMAGES]]
    return chosen


def _unnamed(folder: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An array in a file that has no name, so that whatever happens nothing is left of it."""
    handle, name = tempfile.mkstemp(prefix=".images-", dir=folder if folder.is_dir() else None)
    os.close(handle)
    try:
        if 0 in shape:
            return np.empty(shape, np.uint8)
        return np.memmap(name, np.uint8, "w+", shape=shape)
    finally:
        Path(name).unlink()
