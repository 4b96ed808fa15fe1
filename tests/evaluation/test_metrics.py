"""Confusion matrix, macro averages and the confidence interval of an accuracy."""

import numpy as np
import pytest

from timebox.evaluation.metrics import (
    accuracy_interval,
    confusion_matrix,
    confusion_pairs,
    macro_averages,
    per_class_metrics,
)


def test_labels_are_rows_of_the_confusion_matrix():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    pairs = confusion_pairs(labels, predicted)
    assert pairs.tolist() == [[0, 0, 1], [0, 1, 1], [1, 1, 1], [2, 0, 1]]
    assert confusion_matrix(pairs, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_the_memory_of_metrics_grows_with_images_and_classes_and_not_with_their_square():
    labels, predicted = np.array([0, 99_999, 7]), np.array([0, 5, 7])
    pairs = confusion_pairs(labels, predicted)
    assert pairs.shape == (3, 3)
    metrics = per_class_metrics([""] * 100_000, pairs)  # its square would be 80 GB
    assert [one.recall for one in metrics if one.num_images] == [1.0, 1.0, 0.0]
    assert confusion_pairs(labels[:0], predicted[:0]).shape == (0, 3)


def test_means_leave_out_classes_without_images():
    metrics = per_class_metrics(("a", "b", "c"), np.array([[0, 0, 3], [0, 1, 1], [1, 1, 4]]))
    means = macro_averages(metrics)
    assert means["balanced_accuracy"] == pytest.approx((0.75 + 1) / 2)
    assert means["macro_precision"] == pytest.approx((1 + 0.8) / 2)
    assert means["macro_f1"] == pytest.approx((6 / 7 + 8 / 9) / 2)


@pytest.mark.parametrize(
    ("right", "images", "interval"),
    [(80, 100, (0.7112, 0.8666)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (8421, 10000, (0.8348, 0.8491))],
)
def test_wilsons_interval(right, images, interval):
    assert accuracy_interval(right, images) == pytest.approx(interval, abs=2e-4)
