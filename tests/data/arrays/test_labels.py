"""Labels from Python: every container, and missing, mixed and one-hot ones refused with a count."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from timebox.data.arrays.labels import class_names, read_labels
from timebox.errors import DataError


class Column:
    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values

    def to_numpy(self) -> NDArray[Any]:
        return self._values


class NAType:
    """pandas.NA, which is not comparable."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (["cat", "dog"], ["cat", "dog"]),
        (("cat", "dog"), ["cat", "dog"]),
        (iter(["cat", "dog"]), ["cat", "dog"]),
        (np.array(["cat", "dog"]), ["cat", "dog"]),
        (np.array(["cat", "dog"], object), ["cat", "dog"]),
        (Column(np.array(["cat", "dog"], object)), ["cat", "dog"]),
        ([True, False], [True, False]),
        ([np.int8(3), 4], [3, 4]),
        ([1.0, 2.0], [1, 2]),
        (torch.tensor([3, 4]), [3, 4]),
        (list(torch.tensor([3, 4])), [3, 4]),
        (["", "None"], ["", "None"]),
        (np.array([[1], [2]]), [[1], [2]]),
    ],
)
def test_labels_of_every_container(labels: object, values: list[object]) -> None:
    assert read_labels(labels, "y").tolist() == values


@pytest.mark.parametrize("hole", [None, np.nan, float("nan"), np.float32("nan"), NAType()])
def test_missing_labels_are_counted(hole: object) -> None:
    words = "are missing in y (None, NaN or infinite), the first at position 1: leave out the images without a label"
    assert refusal(lambda: read_labels(["cat", hole, "dog", hole], "y")) == f"2 labels {words}"
    assert refusal(lambda: read_labels(np.array(["cat", hole, "dog", hole], object), "y")) == f"2 labels {words}"
    assert refusal(lambda: read_labels(Column(np.array([1, hole, 2, hole], object)), "y")) == f"2 labels {words}"


def test_missing_labels_that_numpy_has_converted() -> None:
    words = (
        "1 label is missing in y (None, NaN or infinite), the first at position 1: leave out the images without a label"
    )
    assert refusal(lambda: read_labels(np.array(["cat", np.nan]), "y")) == words
    assert refusal(lambda: read_labels(np.array([1, np.nan]), "y")) == words
    assert refusal(lambda: read_labels(torch.tensor([1, torch.nan]), "y")) == words
    assert refusal(lambda: read_labels([0.0, float("inf")], "y")) == words


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, "cat"], "y mixes texts and other labels, such as 'cat' and 1: give one kind"),
        (np.array(["cat", 2], object), "y mixes texts and other labels, such as 'cat' and 2: give one kind"),
        (np.eye(3), "y is (3, 3): labels are (N,); of one-hot labels give y.argmax(1)"),
        ([[0, 1], [1, 0]], "y is (2, 2): labels are (N,); of one-hot labels give y.argmax(1)"),
        ([b"cat", b"dog"], "y holds bytes, such as b'cat': give texts, as label.decode() makes of them"),
        (np.array([b"cat", b"dog"]), "y holds bytes, such as b'cat': give texts, as label.decode() makes of them"),
        ("cat", "y is a str: give one label for each image, as a list or an array"),
        (3, "y is a int: give one label for each image, as a list or an array"),
        ({"a": 1}, "y is a dict: give one label for each image, as a list or an array"),
    ],
)
def test_labels_that_are_none_are_refused(labels: object, message: str) -> None:
    assert refusal(lambda: read_labels(labels, "y")) == message


def test_names_of_classes() -> None:
    assert class_names(np.array(["a", "b"])) == ("a", "b")
    assert class_names(np.array([1.5, 2.0])) == ("1.5", "2.0")
    assert class_names(["", "a"]) == ("0", "1")
    assert class_names(["a", "\ud800"]) == ("0", "1")
