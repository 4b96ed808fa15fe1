"""Labels from Python: lists, arrays, tensors and pandas columns as one array, without missing or mixed values."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timebox.errors import DataError

# Types of pandas for a missing value, which is not equal to itself.
MISSING_TYPES = {"NAType", "NaTType"}


def read_labels(labels: Any, name: str) -> NDArray[np.generic]:
    """Labels as an array (N,) or (N, 1), of any type that can be sorted.

    Args:
        labels: an array, a tensor, a pandas Series, categorical ones too, or a list of numbers or texts.
        name: of the argument, in messages.
    Raises:
        DataError: for missing labels (None, NaN, infinities), bytes, texts mixed with numbers, and one-hot labels.
    """
    if callable(getattr(labels, "detach", None)):
        labels = labels.detach().cpu().numpy()
    elif callable(getattr(labels, "to_numpy", None)):
        labels = labels.to_numpy()
    elif isinstance(labels, Sequence | Iterator) and not isinstance(labels, str | bytes):
        labels = [label.item() if callable(getattr(label, "detach", None)) else label for label in labels]
        if all(np.ndim(label) == 0 for label in labels):
            _check_values(labels, name)
    array = np.asarray(labels)
    if array.ndim == 0:
        raise DataError(f"{name} is a {type(labels).__name__}: give one label for each image, as a list or an array")
    if array.ndim > 1 and array.shape[1:] != (1,):
        raise DataError(f"{name} is {array.shape}: labels are (N,); of one-hot labels give {name}.argmax(1)")
    _check_values(array.ravel(), name)
    return array


def class_names(classes: Iterable[object]) -> tuple[str, ...]:
    """Distinct labels as texts; their indices where two texts are equal, or one cannot be a name of a class."""
    names = tuple(map(str, classes))
    are_names = len(set(names)) == len(names) and all(names) and not re.search("[\ud800-\udfff]", "".join(names))
    return names if are_names else tuple(map(str, range(len(names))))


def _check_values(values: Any, name: str) -> None:
    """Raise DataError for missing values, and for texts mixed with numbers."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biu":
        return
    missing = [position for position, value in enumerate(values) if _is_missing(value)]
    if missing:
        labels = "label is" if len(missing) == 1 else "labels are"
        raise DataError(
            f"{len(missing):,} {labels} missing in {name} (None, NaN or infinite), the first at position {missing[0]}: "
            "leave out the images without a label"
        )
    if encoded := next((value for value in values if isinstance(value, bytes)), None):
        raise DataError(f"{name} holds bytes, such as {bytes(encoded)!r}: give texts, as label.decode() makes of them")
    texts = [value for value in values if isinstance(value, str)]
    if 0 < len(texts) < len(values):
        other = next(value for value in values if not isinstance(value, str))
        raise DataError(f"{name} mixes texts and other labels, such as {str(texts[0])!r} and {other}: give one kind")


def _is_missing(value: Any) -> bool:
    """None, NaN, infinities, pandas' NA and NaT, and the text that NumPy makes of NaN."""
    if value is None or type(value).__name__ in MISSING_TYPES or (isinstance(value, str) and value == "nan"):
        return True
    return isinstance(value, float | np.floating) and not np.isfinite(value)
