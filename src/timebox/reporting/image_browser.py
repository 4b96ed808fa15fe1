"""The content of the browser of images: the scored images with their classes, probabilities and thumbnails."""

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.evaluation.calibration import SMALLEST_PROBABILITY, apply_temperature
from timebox.paths import expand_user
from timebox.reporting.run_data import RunData, SplitPredictions

NUM_TOP = 5
# Images of a page: with their names and probabilities they take about 5 MB of it.
MAX_IMAGES = 50_000
# Probabilities that are calibrated at once: the copies of them take some 50 MB.
_CHUNK_PROBABILITIES = 1 << 22


@dataclass(frozen=True, eq=False)
class ImageBrowser:
    """The content of the browser of one split.

    Attributes:
        data: values for JSON: names of classes and files, and the arrays of each image.
        thumbnails: of each image, an image file in base64, or None.
        num_images: that are in the browser.
        num_left_out: further images of the split, which are predicted correctly with the highest confidence.
    """

    data: Mapping[str, object]
    thumbnails: Sequence[str | None]
    num_images: int
    num_left_out: int


@dataclass(frozen=True, eq=False)
class TopClasses:
    """The most probable classes of each image, calibrated.

    Attributes:
        classes: int64 (N, k), most probable first; k is 5, or the number of classes.
        probabilities: float32 (N, k).
        losses: float32 (N,), the negative log-likelihood of the label in nats.
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    losses: NDArray[np.float32]


def image_browser(run: RunData, predictions: SplitPredictions) -> ImageBrowser:
    """The browser of the images with these predictions, all with the run's temperature."""
    order = by_interest(predictions)[:MAX_IMAGES]
    top = _top_classes(predictions, order, run.number("temperature") or 1.0)
    files = [str(name) for name in predictions.ids[order]]
    folder = _folder_of(files, run)
    index_type = np.dtype(np.uint16 if len(run.class_names) <= 1 << 16 else np.uint32)
    data = {
        "classes": list(run.class_names),
        "split": predictions.split,
        "files": files,
        "folder": str(folder) if folder else "",
        "folderUrl": folder.as_uri() if folder and run.shows_images else "",
        "numTop": top.classes.shape[1],
        "indexBits": 8 * index_type.itemsize,
        "labels": _in_base64(predictions.labels[order].astype(index_type)),
        "topClasses": _in_base64(top.classes.astype(index_type)),
        "topProbabilities": _in_base64(top.probabilities),
        "losses": _in_base64(top.losses),
    }
    return ImageBrowser(
        data,
        _thumbnails_of(run, predictions.split, order),
        len(order),
        predictions.num_images - len(order),
    )


def by_interest(predictions: SplitPredictions) -> NDArray[np.int64]:
    """The positions of the images: errors with the highest confidence first, then correct ones with the lowest."""
    confidence, is_error = predictions.confidence, predictions.predicted != predictions.labels
    order: NDArray[np.int64] = np.lexsort((np.where(is_error, -confidence, confidence), ~is_error))
    return order


def _top_classes(predictions: SplitPredictions, rows: NDArray[np.int64], temperature: float) -> TopClasses:
    num_classes = predictions.probabilities.shape[1]
    num_top, chunk = min(NUM_TOP, num_classes), max(1, _CHUNK_PROBABILITIES // num_classes)
    classes = np.empty((len(rows), num_top), np.int64)
    probabilities, losses = np.empty((len(rows), num_top), np.float32), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), chunk):
        part, here = rows[start : start + chunk], slice(start, start + chunk)
        scaled, index = apply_temperature(predictions.probabilities[part], temperature), np.arange(len(part))
        ranked = scaled.copy()
        ranked[index, predictions.predicted[part]] = 2.0  # the first of equally probable classes is the predicted one
        top = np.argpartition(-ranked, num_top - 1, axis=1)[:, :num_top]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(ranked, top, 1), axis=1, kind="stable"), 1)
        classes[here], probabilities[here] = top, np.take_along_axis(scaled, top, 1)
        losses[here] = -np.log(np.clip(scaled[index, predictions.labels[part]], SMALLEST_PROBABILITY, 1.0))
    return TopClasses(classes, probabilities, losses)


def _thumbnails_of(run: RunData, split: str, order: NDArray[np.int64]) -> list[str | None]:
    if run.thumbnails is None or run.thumbnails.split != split:
        return [None] * len(order)
    images = dict(zip(run.thumbnails.rows.tolist(), run.thumbnails.images, strict=True))
    return [base64.b64encode(images[row]).decode("ascii") if row in images else None for row in order.tolist()]


def _folder_of(files: Sequence[str], run: RunData) -> Path | None:
    """The folder that the names of the files are relative to, where they lie in one now: the data, or a table's."""
    with suppress(OSError, ValueError):
        data = Path(expand_user(run.data)).absolute()
        folder = data.parent if data.is_file() else data
        if run.data and files and (folder / files[0]).is_file():
            return folder
    return None


def _in_base64(array: NDArray[np.generic]) -> str:
    little_endian = array.astype(array.dtype.newbyteorder("<"))
    return base64.b64encode(little_endian.tobytes()).decode("ascii")
