"""What a page tells of a run, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from timebox.evaluation.metrics import accuracy_interval, confusion_matrix, macro_averages, per_class_metrics


@dataclass(frozen=True, eq=False)
class Scored:
    """Images of one split and what the model says of them.

    Attributes:
        split: "test" or "val".
        labels: int64 (N,).
        probabilities: float32 (N, num_classes), not calibrated.
    """

    split: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (N,): the likeliest classes."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(1)
        return predicted

    @property
    def num_right(self) -> int:
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        return self.num_right / len(self.labels)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return accuracy_interval(self.num_right, len(self.labels))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """int64 (num_classes, num_classes), rows the true class."""
        return confusion_matrix(self.labels, self.predicted, self.probabilities.shape[1])

    def macro_averages(self) -> dict[str, float]:
        """Means over the classes."""
        return macro_averages(per_class_metrics([""] * len(self.confusion), self.confusion))


@dataclass(frozen=True, eq=False)
class Example:
    """An image to show.

    Attributes:
        kind: "mistake", "unsure" or "augmented".
        image: uint8 (H, W, C).
        label, predicted: classes by number; the same where the model is right.
        confidence: 0...1, the probability of what it predicts.
    """

    kind: str
    image: NDArray[np.uint8]
    name: str
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run, as its directory tells it.

    Attributes:
        name: of its directory.
        summary: summary.json.
        metrics: metrics.jsonl, line by line.
        scores: the splits that were scored, test first.
    """

    name: str
    summary: Mapping[str, object]
    class_names: Sequence[str]
    metrics: Sequence[Mapping[str, object]]
    scores: Sequence[Scored]
    examples: Sequence[Example]

    def text(self, key: str) -> str:
        """A field of the summary as a text, empty where it is missing."""
        value = self.summary.get(key)
        return "" if value is None else str(value)

    def number(self, key: str) -> float | None:
        """A field of the summary as a number, None where it is none."""
        value = self.summary.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def mapping(self, key: str) -> Mapping[str, object]:
        """A field of the summary that holds others; empty where it is missing."""
        value = self.summary.get(key)
        return value if isinstance(value, Mapping) else {}

    def texts(self, key: str) -> list[str]:
        """A field of the summary that is a list of texts."""
        value = self.summary.get(key)
        return [str(item) for item in value] if isinstance(value, list) else []

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every line of the metrics that has a number of that name, without what was rolled back."""
        points: list[tuple[float, float]] = []
        for line in self.metrics:
            step, value = line.get("step"), line.get(key)
            if line.get("rolled_back"):
                points = [point for point in points if isinstance(step, int) and point[0] <= step]
            elif isinstance(step, int) and isinstance(value, int | float):
                points.append((step, float(value)))
        return points
