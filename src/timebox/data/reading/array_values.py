"""Brings arrays of images and labels, as people save them, to uint8 images and plain labels, where that is certain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.data.reading.array_splits import as_images
from timebox.data.tables.labels import clean_labels, is_missing
from timebox.errors import DataError

_ROUNDING = 1e-3  # how far values scaled to 0..1 may lie outside


@dataclass(frozen=True, eq=False)
class PlainLabels:
    """Labels of a split.

    Attributes:
        labels: int64 or str (N,); of an image without a label any value.
        has_label: bool (N,).
        notes: on labels that were changed.
    """

    labels: NDArray[np.int64] | NDArray[np.str_]
    has_label: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def plain_images(arrays: Mapping[str, NDArray[np.generic]]) -> tuple[dict[str, NDArray[np.uint8]], str | None]:
    """(uint8 (N, H, W, C) by name, a note where values were scaled) from the image arrays of all splits.

    Accepts uint8, booleans, whole numbers in 0..255 of any type, and floating point in 0..1, all arrays by one rule.
    Raises DataError, naming the array, for anything else.
    """
    rules = {name: _scale_of(array, name) for name, array in arrays.items()}
    if len(set(rules.values())) > 1:
        listed = " and ".join(f"{name} ({'0..1' if scale == 255 else '0..255'})" for name, scale in rules.items())
        raise DataError(f"{listed} hold values of different ranges: save them all as uint8 in 0..255")
    scale = next(iter(rules.values()))
    for name, array in arrays.items():
        if array.ndim == 4 and array.shape[1] in (1, 3) and array.shape[3] not in (1, 3, 4):
            key = name.rpartition(": ")[2]
            raise DataError(f"{name} is (N, C, H, W) {array.shape}; save {key}.transpose(0, 2, 3, 1) instead")
    images = {name: as_images(_to_uint8(array, scale), name) for name, array in arrays.items()}
    first, array = next(iter(arrays.items()))
    if scale == 1:
        return images, None
    return images, f"{first.rpartition(': ')[2]} is {array.dtype} in 0..1: 0 is read as black, 1 as white"


def _scale_of(array: NDArray[np.generic], name: str) -> int:
    """The factor for the values of an image array: 1 or 255. Raises DataError where that is not certain."""
    kind = array.dtype.kind
    if array.dtype == np.uint8 or not array.size:
        return 1
    if kind == "b":
        return 255
    if kind not in "iuf":
        raise DataError(f"{name} is {array.dtype}; images must be numbers: save them as uint8 in 0..255")
    if kind == "f" and not np.isfinite(array).all():
        number = int((~np.isfinite(array)).sum())
        raise DataError(f"{name} has {number:,} values that are NaN or infinite: replace them and save it as uint8")
    low, high = float(array.min()), float(array.max())
    if kind == "f" and low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return 255
    if low >= 0 and high <= 255:
        return 1
    shown = f"{name} is {array.dtype} and runs from {low:g} to {high:g}; images must be uint8 in 0..255"
    scaled = "(x + 1) / 2 * 255" if low >= -1 and high <= 1 else f"(x - {low:g}) / {high - low:g} * 255"
    raise DataError(f"{shown}: if that is black to white, save {scaled}, rounded, as uint8")


def _to_uint8(array: NDArray[np.generic], scale: int) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    return np.stack([np.rint(np.clip(image.astype(np.float64) * scale, 0, 255)).astype(np.uint8) for image in array])


def plain_labels(array: NDArray[np.generic], name: str) -> PlainLabels:
    """Labels as integers or texts: one-hot rows as their index, bytes as text, whole numbers of any type as integers.

    Raises DataError, naming the array, for labels of another shape or type.
    """
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim == 2:
        return _from_one_hot(labels, name)
    if labels.ndim != 1:
        raise DataError(f"{name} is {array.dtype} {array.shape}; labels must be (N,) integers or strings")
    everywhere = np.ones(len(labels), bool)
    if labels.dtype.kind in "iu":
        return PlainLabels(labels.astype(np.int64), everywhere)
    if labels.dtype.kind == "f":
        has_label = ~np.isnan(labels.astype(np.float64))
        values = np.where(has_label, labels, 0).astype(np.float64)
        if not (np.isfinite(values) & (values == np.rint(values))).all():
            raise DataError(f"{name} is {array.dtype} with fractions; labels must be (N,) integers or strings")
        return PlainLabels(values.astype(np.int64), has_label)
    return _from_texts(decode_texts(labels, name), name)


def decode_texts(array: NDArray[np.generic], name: str) -> list[str]:
    """The elements of an array as texts; bytes are UTF-8. Raises DataError for bytes that are not."""
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in array.ravel().tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{name} holds bytes that are not UTF-8: save it as text") from error


def _from_one_hot(labels: NDArray[np.generic], name: str) -> PlainLabels:
    if labels.dtype.kind not in "biuf" or not ((labels == 0) | (labels == 1)).all() or not labels.shape[1]:
        raise DataError(
            f"{name} has the shape {labels.shape}; labels must be (N,) integers or strings, or one-hot rows"
        )
    num_ones = (labels == 1).sum(1)
    if (num_ones > 1).any():
        number = int((num_ones > 1).sum())
        raise DataError(f"{name} has {number:,} rows with several ones: timebox learns one label an image")
    note = f"{name.rpartition(': ')[2]} is one-hot: the label is the position of the 1"
    return PlainLabels(labels.argmax(1).astype(np.int64), num_ones == 1, (note,))


def _from_texts(texts: Sequence[str], name: str) -> PlainLabels:
    cleaned = clean_labels(texts, name)
    has_label = np.array([not is_missing(text) for text in texts], bool)
    return PlainLabels(np.array([label or "" for label in cleaned.labels], np.str_), has_label, cleaned.notes)
