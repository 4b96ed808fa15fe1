import numpy as np
import pytest

from timebox.data import ImageDataset, align_labels
from timebox.errors import DataError

from .making import dataset


def test_classes_are_matched_by_name():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    given = ImageDataset(images, np.array([0, 1, 0]), ("dog", "cat", "unused"), ("a", "b", "c"))
    conformed = align_labels(given, ("cat", "cow", "dog"), (8, 8, 1), "val")
    assert conformed.labels.tolist() == [2, 0, 2]
    assert conformed.class_names == ("cat", "cow", "dog")
    assert conformed.images is images


def test_unknown_classes_are_refused():
    given = dataset([1, 1, 1])
    with pytest.raises(
        DataError, match=r"^val has images of classes unknown to training \(class 2\); known are class 0"
    ):
        align_labels(given, ("class 0", "class 1"), (4, 4, 3), "val")


def test_size_and_channels_are_fitted():
    given = dataset([2, 2], side=8, channels=3)
    assert align_labels(given, given.class_names, (16, 16, 1), "val").image_shape == (16, 16, 1)
    assert align_labels(given, given.class_names, (8, 8, 3), "val") is given
