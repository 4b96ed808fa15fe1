"""The predictions of a finished run as a table: those of predictions.npz, calibrated, with class names."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timebox.errors import RunError, UsageError, option_text
from timebox.evaluation.calibration import SMALLEST_PROBABILITY, apply_temperature
from timebox.file_versions import PREDICTIONS_FORMAT
from timebox.run.files import PREDICTIONS, read_arrays
from timebox.run.results.table import Column, Table, as_objects, to_table

if TYPE_CHECKING:
    from timebox.run.run import Run

SPLITS, ALL = ("test", "val"), "all"
MAX_SUM_ERROR = 0.01  # of a row of probabilities, whose sum is 1
CHUNK_PROBABILITIES = 1 << 22  # are calibrated at once: the three copies of them take 50 MB


@dataclass(frozen=True, eq=False)
class SavedPredictions:
    """Rows of predictions.npz, one for each scored image.

    Attributes:
        splits: str (N,), ``val`` or ``test``.
        ids: str (N,), the path of the image relative to the data, or its position in them.
        labels: int64 (N,), class indices.
        probabilities: float32 (N, num_classes), not calibrated; rows sum to one.
    """

    splits: NDArray[np.generic]
    ids: NDArray[np.generic]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (N,): the class with the highest probability, as :meth:`Run.predict_indices` chooses it."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(1).astype(np.int64)
        return predicted

    @property
    def split_names(self) -> list[str]:
        """The splits that have rows, test first."""
        return [name for name in SPLITS if (self.splits == name).any()]

    def take(self, rows: Column) -> "SavedPredictions":
        """The rows at these indices, or those that a boolean mask selects."""
        return SavedPredictions(self.splits[rows], self.ids[rows], self.labels[rows], self.probabilities[rows])

    def calibrated(self, temperature: float) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The probability of the predicted class, float32 (N,), and the negative log-likelihood of the label in nats,
        float64 (N,), both after :func:`~timebox.evaluation.calibration.apply_temperature`."""
        confidence, of_label = np.empty(len(self), np.float32), np.empty(len(self), np.float64)
        num_rows = max(1, CHUNK_PROBABILITIES // self.probabilities.shape[1])
        for start in range(0, len(self), num_rows):
            rows = slice(start, start + num_rows)
            scaled = apply_temperature(self.probabilities[rows], temperature)
            index = np.arange(len(scaled))
            confidence[rows] = scaled[index, self.predicted[rows]]
            of_label[rows] = scaled[index, self.labels[rows]]
        # Rounding may leave a probability just above 1. 0 - 0 is 0, and not -0.
        return confidence, 0.0 - np.log(np.clip(of_label, SMALLEST_PROBABILITY, 1.0))


def predictions_table(run: "Run", split: str) -> Table:
    """The table of :meth:`Run.predictions`."""
    return to_table(_columns(run, _of_split(run, split), split))


def mistakes_table(run: "Run", split: str) -> Table:
    """The table of :meth:`Run.mistakes`."""
    return to_table(_columns(run, confident_mistakes(run, _of_split(run, split)), split))


def confident_mistakes(run: "Run", saved: SavedPredictions, num: int | None = None) -> SavedPredictions:
    """The ``num`` mistakes with the highest probability, most confident first; None for all. Ties keep their order."""
    wrong = saved.take(saved.predicted != saved.labels)
    order = np.argsort(-wrong.calibrated(run.temperature)[0], kind="stable")
    return wrong.take(order[:num])


def read_predictions(run: "Run") -> SavedPredictions | None:
    """The checked rows of a run's predictions.npz; None without the file. Raises RunError where it is damaged."""
    path = run.path / PREDICTIONS
    columns = read_arrays(path, PREDICTIONS_FORMAT)
    if not columns:
        return None
    try:
        splits, ids, labels, probabilities = (columns[name] for name in ("split", "id", "label", "probabilities"))
    except KeyError as error:
        raise damaged(path, f"it lacks the column {error}") from error
    if not splits.ndim == ids.ndim == labels.ndim == 1 or not len(splits) == len(ids) == len(labels):
        raise damaged(path, "its columns are not of one length")
    num_classes = len(run.class_names)
    if probabilities.shape == (0, num_classes) and not len(
        labels
    ):  # NumPy gives an empty list of names the type of numbers
        return SavedPredictions(
            splits.astype(str), ids.astype(str), labels.astype(np.int64), probabilities.astype(np.float32)
        )
    if splits.dtype.kind != "U" or ids.dtype.kind != "U":
        raise damaged(path, "its splits or names of images are no texts")
    if not np.isin(splits, SPLITS).all():
        raise damaged(path, f"it holds splits other than {' and '.join(SPLITS)}")
    if problem := problem_with(labels, probabilities, num_classes):
        raise damaged(path, f"it {problem}")
    return SavedPredictions(
        splits, ids, labels.astype(np.int64, copy=False), probabilities.astype(np.float32, copy=False)
    )


def problem_with(labels: Column, probabilities: Column, num_classes: int) -> str | None:
    """A problem with columns of predictions.npz, in words that follow the name of the file; None for sound ones."""
    if probabilities.shape != (len(labels), num_classes):
        return f"holds no probabilities of {num_classes:,} classes"
    if labels.dtype != np.int64 or not np.isin(labels, np.arange(num_classes)).all():
        return f"holds labels outside 0...{num_classes - 1}"
    if not _are_probabilities(probabilities):
        return "holds probabilities below 0, or rows that do not sum to 1"
    return None


def _are_probabilities(rows: Column) -> bool:
    """Whether an array (N, num_classes) is float32, not negative, and has rows that sum to 1. NaN is not."""
    return rows.dtype == np.float32 and bool((rows >= 0).all() and (np.abs(rows.sum(1) - 1) < MAX_SUM_ERROR).all())


def damaged(path: Path, reason: str) -> RunError:
    """The error for a file of a run that is damaged."""
    return RunError(f"{str(path)!r} is damaged: {reason}")


def _of_split(run: "Run", split: str) -> SavedPredictions:
    """The predictions of a split, or of all. Raises UsageError for an unknown split, RunError for one without rows."""
    if not isinstance(split, str) or split not in (*SPLITS, ALL):
        raise UsageError(f"split {split!r} must be one of {', '.join((*SPLITS, ALL))}")
    saved = read_predictions(run)
    if saved is None or not len(saved):
        raise RunError(f"run {str(run.path)!r} has no saved predictions: {_reason_without(run)}")
    if split == ALL:
        return saved
    if split not in saved.split_names:
        others = " and ".join(map(repr, saved.split_names))
        remedy = option_text("split", saved.split_names[0])
        raise RunError(f"run {str(run.path)!r} has predictions of {others} only, none of {split!r}; use {remedy}")
    return saved.take(saved.splits == split)


def _reason_without(run: "Run") -> str:
    """Why a run has no predictions of its own images, and what to do, in words."""
    summary, training = run.summary, run.config.get("training")
    again = "predict images with run.predict_proba, or score them with timebox.evaluate"
    if summary.get("stopped"):
        resume = option_text("resume", str(run.path))
        return f"it was stopped before its images were scored; timebox.train({resume}) goes on with it"
    if not summary:
        return f"it ended before its images were scored, or is still being trained; {again}"
    if isinstance(training, dict) and training.get("scoring") is False:
        return f"it was trained with {option_text('scoring', False)}; {again}"
    if any(summary.get(f"{name}_images") for name in SPLITS):
        events = summary.get("events")
        left_out = [event for event in events if event.startswith(PREDICTIONS)] if isinstance(events, list) else []
        return f"{left_out[0] if left_out else f'{PREDICTIONS} could not be written, or was removed'}; {again}"
    if any(summary.get(f"{name}_images_total") for name in SPLITS):
        return f"there was no time to score its images; {again}"
    return f"it has no test and no validation images; {again}"


def _columns(run: "Run", saved: SavedPredictions, split: str) -> dict[str, Column]:
    """The columns of :meth:`Run.predictions`."""
    names = as_objects(run.class_names)
    probability, loss = saved.calibrated(run.temperature)
    columns: dict[str, Column] = {
        "file": saved.ids.astype(object),
        "label": names[saved.labels],
        "predicted": names[saved.predicted],
        "probability": probability,
        "loss": loss,
    }
    return {"split": saved.splits.astype(object), **columns} if split == ALL else columns
