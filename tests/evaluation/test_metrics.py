"""Confusion matrix, macro averages and the confidence interval of an accuracy."""

import numpy as np
import pytest

from timebox.evaluation.metrics import accuracy_interval, confusion_matrix, macro_averages, per_class_metrics


def test_labels_are_rows_of_the_confusion_matrix():
    labels, predicted = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert confusion_matrix(labels, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_means_leave_out_classes_without_images():
    metrics = per_class_metrics(("a", "b", "c"), np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
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
