import numpy as np
import pytest

from timebox.data import ImageDataset, align_labels
from timebox.errors import DataError

from .making import dataset

IMAGES = np.zeros((2, 4, 5, 3), np.uint8)
LABELS = np.array([0, 1], np.int64)


def test_shape_and_class_counts():
    data = ImageDataset(IMAGES, LABELS, ("a", "b", "c"), ("x", "y"))
    assert (len(data), data.num_classes, data.image_shape) == (2, 3, (4, 5, 3))
    assert data.class_counts().tolist() == [1, 1, 0]
    assert data.class_counts().dtype == np.int64


def test_take_keeps_order_and_ids_and_copies():
    data = dataset([3, 3])
    taken = data.take([4, 1])
    assert taken.ids == ("4", "1")
    assert np.array_equal(taken.images[0], data.images[4])
    assert taken.labels.tolist() == data.labels[[4, 1]].tolist()
    taken.images[:] = 0
    assert data.images.any()


def test_take_no_images():
    assert len(dataset([3, 3]).take([])) == 0


@pytest.mark.parametrize(
    ("images", "labels", "names", "ids", "words"),
    [
        (IMAGES.astype(np.float32), LABELS, "ab", "xy", r"images are float32 \(2, 4, 5, 3\): they must be uint8"),
        (IMAGES[..., :2], LABELS, "ab", "xy", "1, 3 or 4 channels"),
        (IMAGES[0], LABELS, "ab", "xy", r"must be uint8 \(N, H, W, C\)"),
        (IMAGES, LABELS.astype(np.int32), "ab", "xy", "labels are int32"),
        (IMAGES, LABELS[:1], "ab", "xy", r"these images need int64 \(2,\)"),
        (IMAGES, LABELS, "ab", "x", "1 ids for 2 images"),
        (IMAGES, LABELS, "aa", "xy", "'a' comes twice"),
        (IMAGES, LABELS, "a", "xy", r"labels run from 0 to 1: with 1 classes they must lie in 0\.\.0"),
        (IMAGES, LABELS - 1, "ab", "xy", "labels run from -1 to 0"),
    ],
)
def test_invalid_arrays_are_refused(images, labels, names, ids, words):
    with pytest.raises(DataError, match=words):
        ImageDataset(images, labels, tuple(names), tuple(ids))


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
