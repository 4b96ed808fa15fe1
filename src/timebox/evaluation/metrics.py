"""Classification metrics: accuracy with its interval, confusion matrix, precision, recall and F1."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_LEVEL = 0.95
MAX_MATRIX_CLASSES = 2000  # the confusion matrix of more classes takes more than 32 MB


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, over ``num_images`` scored images of it. Undefined ratios are 0."""

    name: str
    num_images: int
    precision: float
    recall: float
    f1: float


def confusion_pairs(labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The confusion matrix in coordinate format (COO): int64 (K, 3) of label, predicted class and number of images.

    Entries that are 0 are left out, so K is at most the number of images. Sorted by label, then by predicted class.
    """
    pairs, counts = np.unique(np.stack([labels, predicted], 1), axis=0, return_counts=True)
    return np.concatenate([pairs, counts[:, None]], 1).astype(np.int64)


def confusion_matrix(pairs: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """The :func:`confusion_pairs` as int64 (num_classes, num_classes): labels are rows, predicted classes columns."""
    confusion = np.zeros((num_classes, num_classes), np.int64)
    confusion[pairs[:, 0], pairs[:, 1]] = pairs[:, 2]
    return confusion


def per_class_metrics(class_names: Sequence[str], pairs: NDArray[np.int64]) -> tuple[ClassMetrics, ...]:
    """Precision, recall and F1 of each class, from :func:`confusion_pairs`."""
    labels, predictions, counts = pairs.T
    is_right = labels == predictions
    right, predicted, actual = (
        np.bincount(classes, weights=numbers, minlength=len(class_names)).astype(np.int64)
        for classes, numbers in ((labels, counts * is_right), (predictions, counts), (labels, counts))
    )
    metrics = []
    for i, name in enumerate(class_names):
        precision = right[i] / predicted[i] if predicted[i] else 0.0
        recall = right[i] / actual[i] if actual[i] else 0.0
        f1 = 2 * right[i] / (predicted[i] + actual[i]) if predicted[i] + actual[i] else 0.0
        metrics.append(ClassMetrics(name, int(actual[i]), float(precision), float(recall), float(f1)))
    return tuple(metrics)


def macro_averages(metrics: Sequence[ClassMetrics]) -> dict[str, float]:
    """Means of recall (balanced accuracy), precision and F1 over the classes that have images."""
    present = [one for one in metrics if one.num_images] or metrics
    return {
        "balanced_accuracy": sum(one.recall for one in present) / len(present),
        "macro_precision": sum(one.precision for one in present) / len(present),
        "macro_f1": sum(one.f1 for one in present) / len(present),
    }


def standard_error(accuracy: float, num_images: int) -> float:
    """Standard error of an accuracy, also of the difference of two networks that share half of their errors."""
    return math.sqrt(accuracy * (1 - accuracy) / num_images)


def accuracy_interval(num_right: int, num_images: int) -> tuple[float, float]:
    """The 95 % confidence interval of an accuracy, 0...1 (Wilson score interval, JASA 22, 1927)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE_LEVEL) / 2)
    share, spread = num_right / num_images, z * z / num_images
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / num_images + spread / (4 * num_images))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Fraction of the rows (M, num_classes) whose maximum is at the label; labels after the first M are ignored."""
    return float((probabilities.argmax(1) == labels[: len(probabilities)]).mean())
