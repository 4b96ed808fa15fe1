"""Brings images from Python to one form: arrays, tensors, tables, lists, files and Pillow images.

Layouts are converted where only one reading is possible; else DataError names the two and how to say which is meant.
Values are not changed here, see :mod:`timebox.data.images.pixel_range`.
"""

import io
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timebox.errors import DataError

NUM_CHANNELS = (1, 3, 4)
Array: TypeAlias = NDArray[Any]
ImageFile: TypeAlias = str | Path | BinaryIO | Image.Image
Batch: TypeAlias = Array | list[ImageFile | Array]

LAYOUTS = "images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels"


def collate(images: object, name: str) -> Batch:
    """Images as one array, or as a list with an entry for each.

    Args:
        images: an array or a tensor; a pandas or polars Series or DataFrame; a list, tuple or iterator of paths, file
            objects, encoded bytes, Pillow images, arrays and tensors; or one path, file object or Pillow image.
        name: of the argument, in messages.
    Returns:
        Numbers as an array, 4-D ones with the channels last: tensors may have them first. Else a list whose entries are
        files, or arrays (H, W) or (H, W, C).
    Raises:
        DataError: for other objects, and for layouts with two readings.
    """
    if (file := as_file(images)) is not None:
        return [file]
    if isinstance(images, Mapping | Set):
        raise DataError(f"{name} is a {type(images).__name__}, which has no order of images: give a list or an array")
    if isinstance(images, Sequence | Iterator):
        return _collate_items(list(images), name)
    array = as_array(images, name)
    if array.dtype.kind in "OUST":
        return _collate_items(_column(array, name), name)
    return channels_last(array, name) if array.ndim == 4 else array


def as_file(value: object) -> ImageFile | None:
    """A path, file object, encoded bytes or Pillow image as a file that can be decoded; None for anything else."""
    if isinstance(value, bytes | bytearray | memoryview):
        return io.BytesIO(value)
    if isinstance(value, os.PathLike) and not isinstance(value, Path):
        return Path(os.fspath(value))
    is_stream = callable(getattr(value, "read", None)) and callable(getattr(value, "seek", None))
    return value if isinstance(value, str | Path | Image.Image) or is_stream else None  # type: ignore[return-value]


def as_array(value: Any, name: str) -> Array:
    """The NumPy array of an array, tensor, Series or DataFrame. Raises DataError where there is none."""
    try:
        if callable(getattr(value, "detach", None)):  # a torch tensor, perhaps with gradients, on a GPU or in bfloat16
            value = value.detach().cpu()
            value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
        elif callable(getattr(value, "to_numpy", None)):
            value = value.to_numpy()
        array: Array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} is a {type(value).__name__} that cannot be read as an array: {error}") from error
    if array.ndim == 0:
        raise DataError(
            f"{name} is a {type(value).__name__}: give an array (N, H, W, C), or a list of paths, arrays and PIL images"
        )
    return array


def channels_last(array: Array, name: str) -> Array:
    """A 4-D array as (N, H, W, C): (N, C, H, W) is turned. Raises DataError where the channels may be either axis."""
    first, last = array.shape[1] in NUM_CHANNELS, array.shape[3] in NUM_CHANNELS
    if first and last:
        raise DataError(
            f"{name} is {array.shape}: the channels may be the second axis or the last; give images of which only the "
            "last axis is 1, 3 or 4"
        )
    if not first and not last:
        raise DataError(f"{name} is {array.shape}: {LAYOUTS}")
    return array.transpose(0, 2, 3, 1) if first else array


def as_batch(array: Array, name: str, image_shape: tuple[int, int, int]) -> Array:
    """An array of :func:`collate` as (N, H, W, C): (H, W) and (H, W, C) are one image, (N, H, W) grey images.

    Args:
        image_shape: (H, W, C) of the model's input. If it takes colours, (3, H, W) has two readings.
    """
    height, width, channels = image_shape
    if array.ndim == 2 and array.shape[1] in (height * width, height * width * channels):
        raise DataError(
            f"{name} is {array.shape}, which looks like rows of pixels: give {name}.reshape(-1, {height}, {width}"
            f"{', ' + str(channels) if array.shape[1] != height * width else ''})"
        )
    if array.ndim == 2:
        array = array[None, ..., None]
    elif array.ndim == 3 and array.shape[2] in NUM_CHANNELS:
        array = array[None]
    elif array.ndim == 3 and array.shape[0] in (3, 4) and channels > 1:
        num = array.shape[0]
        raise DataError(
            f"{name} is {array.shape}: {num} grey images, or one image with its {num} channels first; give "
            f"{name}[..., None] for grey images, {name}[None] for one image"
        )
    elif array.ndim == 3:
        array = array[..., None]
    elif array.ndim != 4:
        raise DataError(f"{name} is {array.shape}: {LAYOUTS}")
    if 0 in array.shape[1:3]:
        raise DataError(f"{name} is {array.shape}: images without pixels")
    return array


def as_image(array: Array, name: str) -> Array:
    """One image as (H, W, C): (H, W) is grey, (C, H, W) is turned. Raises DataError for other shapes."""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 4 and len(array) == 1:
        (array,) = channels_last(array, name)
    if array.ndim == 3 and array.shape[2] in NUM_CHANNELS:
        return array
    if array.ndim == 3 and array.shape[0] in NUM_CHANNELS:
        return array.transpose(1, 2, 0)
    raise DataError(f"{name} is {array.shape}: one image is (H, W), or (H, W, C) with 1, 3 or 4 channels")


def _column(array: Array, name: str) -> list[Any]:
    """The items of an array of objects: (N,), or a table of one column."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 1:
        return list(array)
    try:  # numbers kept as objects
        return [np.asarray(row.tolist(), np.float64) for row in array]
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is an array of objects, {array.shape}: give one column of images") from error


def _collate_items(items: list[Any], name: str) -> Batch:
    """A list of images: arrays of one shape and dtype are stacked, and rows of numbers become one array."""
    if not items:
        return []
    if all(_is_number(item) for item in items):
        return np.asarray(items)
    collated = [_item(item, f"{name}[{position}]") for position, item in enumerate(items)]
    arrays = [item for item in collated if isinstance(item, np.ndarray)]
    if len(arrays) < len(collated):
        return [item if not isinstance(item, np.ndarray) else as_image(item, name) for item in collated]
    if len({array.shape for array in arrays}) == 1 and len({array.dtype for array in arrays}) == 1:
        stacked = np.stack(arrays)
        if stacked.ndim == 3 and stacked.shape[2] not in NUM_CHANNELS:  # grey images, also if there are three of them
            return stacked[..., None]
        if stacked.ndim == 5 and stacked.shape[1] == 1:  # batches of one image, as loaders give them
            stacked = stacked[:, 0]
        return channels_last(stacked, name) if stacked.ndim == 4 else stacked
    if lengths := sorted({len(array) for array in arrays if array.ndim == 1}):
        raise DataError(f"{name} has rows of different lengths: {', '.join(map(str, lengths[:5]))} values")
    return [as_image(array, f"{name}[{position}]") for position, array in enumerate(arrays)]


def _item(item: Any, name: str) -> ImageFile | Array:
    """An entry of a list of images, as a file or an array of numbers."""
    if (file := as_file(item)) is not None:
        return file
    if item is None:
        raise DataError(f"{name} is None: leave out images that are missing")
    array = as_array(item, name)
    if array.dtype.kind not in "biufc":
        raise DataError(f"{name} is a {type(item).__name__}: it must be a path, a PIL image, an array or a tensor")
    return array


def _is_number(item: object) -> bool:
    return isinstance(item, int | float | complex | np.number | np.bool_)
