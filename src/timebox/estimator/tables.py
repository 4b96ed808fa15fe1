"""Rows of pixels and labels, as scikit-learn gives them to a classifier of images."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from timebox.data.arrays.labels import read_labels
from timebox.errors import DataError, UsageError
from timebox.planning.dataset_profile import MIN_SIDE

SQUARE = "square"


def reshape_rows(rows: NDArray[np.uint8], image_shape: object) -> NDArray[np.uint8]:
    """Reshape (N, num_features) to images; a square below the least size is enlarged by a whole factor."""
    num_features = rows.shape[1]
    if image_shape is None:
        raise UsageError(
            f"X is 2-D with {num_features} features: set image_shape=(H, W) or (H, W, C), the image of each row"
        )
    if isinstance(image_shape, str):
        if image_shape != SQUARE:
            raise UsageError(f"image_shape {image_shape!r} must be (H, W), (H, W, C) or 'square'")
        side = math.ceil(math.sqrt(num_features))
        padded = np.zeros((len(rows), side * side), rows.dtype)
        padded[:, :num_features] = rows
        factor = math.ceil(MIN_SIDE / side)
        return padded.reshape(len(rows), side, side).repeat(factor, axis=1).repeat(factor, axis=2)
    if not isinstance(image_shape, Sequence):
        raise UsageError(f"image_shape {image_shape!r} must be (H, W), (H, W, C) or 'square'")
    if len(image_shape) not in (2, 3) or math.prod(image_shape) != num_features:
        raise UsageError(f"image_shape {tuple(image_shape)} has {math.prod(image_shape)} values, X has {num_features}")
    return rows.reshape(len(rows), *image_shape)


def is_table(X: Any) -> bool:  # noqa: N803
    """Whether X is a 2-D array or a DataFrame of several columns, which scikit-learn checks."""
    return getattr(X, "ndim", 0) == 2 and X.shape[1] > 1 and not callable(getattr(X, "detach", None))


def read_targets(y: object) -> NDArray[np.generic]:
    """Labels (N,), see :func:`read_labels`. Raises DataError for numbers that are no classes."""
    labels: NDArray[np.generic] = column_or_1d(read_labels(y, "y"), warn=True)
    try:
        check_classification_targets(labels)
    except (TypeError, ValueError) as error:
        raise DataError(str(error)) from error
    return labels


def squeeze(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) of a grey image (H, W, 1), as Pillow takes it."""
    return image[..., 0] if image.shape[-1] == 1 else image
