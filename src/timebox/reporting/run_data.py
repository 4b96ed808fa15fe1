"""The content of a run directory as plain values, for the pages that show it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from timebox.evaluation.metrics import accuracy_interval, confusion_pairs
from timebox.run.results.thumbnails import Thumbnails

_SPLIT_TITLES = {"test": "test images", "val": "validation images"}


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """The labels of one split and the predicted probabilities.

    Attributes:
        split: "test" or "val".
        labels: int64 (N,).
        probabilities: float32 (N, num_classes), not calibrated.
        ids: str (N,), the path of each image relative to the data, or its position in them.
    """

    split: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    ids: NDArray[np.generic]

    @property
    def title(self) -> str:
        """The split as pages name it: "test images" or "validation images"."""
        return _SPLIT_TITLES[self.split]

    @property
    def num_images(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """int64 (N,): the class with the highest probability."""
        predicted: NDArray[np.int64] = self.probabilities.argmax(1)
        return predicted

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """float32 (N,): the probability of the predicted class, not calibrated."""
        confidence: NDArray[np.float32] = self.probabilities.max(1)
        return confidence

    @property
    def num_correct(self) -> int:
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson)."""
        return accuracy_interval(self.num_correct, self.num_images)

    @cached_property
    def confusion_pairs(self) -> NDArray[np.int64]:
        """See :func:`timebox.evaluation.metrics.confusion_pairs`."""
        return confusion_pairs(self.labels, self.predicted)


@dataclass(frozen=True, eq=False)
class Example:
    """An image that the report shows.

    Attributes:
        kind: "suspect" (a training image whose label the training doubts) or "augmented". Runs of versions before
            0.2.0 also have "mistake" (misclassified) and "unsure" (classified correctly with low confidence).
        image: uint8 (H, W, C).
        name: of the image, such as its file name; of an augmented image, its class name.
        label, predicted: class indices, equal unless the kind is "mistake" or "suspect".
        confidence: 0...1, the calibrated probability of the predicted class.
    """

    kind: str
    image: NDArray[np.uint8]
    name: str
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True, eq=False)
class RunData:
    """The content of a run directory.

    Attributes:
        name: of the directory.
        summary: the content of summary.json. Any field may be missing.
        metrics: the lines of metrics.jsonl.
        predictions: of the evaluated splits, test before val.
        data: the path of the data as it was given; empty where it is unknown.
        thumbnails: of the images of the first split; None without any.
        shows_images: whether pages may show images of the data.
    """

    name: str
    summary: Mapping[str, object]
    class_names: Sequence[str]
    metrics: Sequence[Mapping[str, object]]
    predictions: Sequence[SplitPredictions]
    examples: Sequence[Example]
    data: str = ""
    thumbnails: Thumbnails | None = None
    shows_images: bool = True

    def text(self, key: str) -> str:
        """A field of the summary as text, empty where it is missing."""
        value = self.summary.get(key)
        return "" if value is None else str(value)

    def number(self, key: str) -> float | None:
        """A numeric field of the summary, None where it is missing or no number."""
        value = self.summary.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def mapping(self, key: str) -> Mapping[str, object]:
        """An object field of the summary, empty where it is missing or no object."""
        value = self.summary.get(key)
        return value if isinstance(value, Mapping) else {}

    def texts(self, key: str) -> list[str]:
        """A list field of the summary as texts, empty where it is missing or no list."""
        value = self.summary.get(key)
        return [str(item) for item in value] if isinstance(value, list) else []

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(step, value) of every metrics line that has a number under ``key``, without steps that were rolled back."""
        points: list[tuple[float, float]] = []
        for line in self.metrics:
            step, value = line.get("step"), line.get(key)
            if line.get("rolled_back"):
                points = [point for point in points if isinstance(step, int) and point[0] <= step]
            elif isinstance(step, int) and isinstance(value, int | float):
                points.append((step, float(value)))
        return points
