import numpy as np
import pytest

from timebox.data import ImageDataset, align_labels
from timebox.errors import DataError

from .making import dataset


def test_classes_are_matched_by_name():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    source = ImageDataset(images, np.array([0, 1, 0]), ("dog", "cat", "unused"), ("a", "b", "c"))
    aligned = align_labels(source, ("cat", "cow", "dog"), (8, 8, 1), "val")
    assert aligned.labels.tolist() == [2, 0, 2]
    assert aligned.class_names == ("cat", "cow", "dog")
    assert aligned.images is images


def test_unknown_classes_are_refused():
    source = dataset([1, 1, 1])
    with pytest.raises(
        DataError, match=r"^val has images of classes unknown to training \(class 2\); known are class 0"
    ):
        align_labels(source, ("class 0", "class 1"), (4, 4, 3), "val")


def test_images_are_resized_and_converted():
    source = dataset([2, 2], side=8, channels=3)
    assert align_labels(source, source.class_names, (16, 16, 1), "val").image_shape == (16, 16, 1)
    assert align_labels(source, source.class_names, (8, 8, 3), "val") is source
