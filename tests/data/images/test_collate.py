"""Images from Python in one form: every container that people have, and layouts with one reading or two."""

import io
from collections import deque
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from timebox.data.images.collate import Array, as_batch, as_image, collate
from timebox.errors import DataError

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)
GREY = RGB[..., 0]
COLOUR_MODEL, GREY_MODEL = (12, 10, 3), (12, 10, 1)


class Column:
    """A Series or DataFrame of pandas or polars: it is known by to_numpy alone."""

    def __init__(self, values: Array) -> None:
        self._values = values

    def to_numpy(self) -> Array:
        return self._values


def objects(items: list[Any]) -> NDArray[np.object_]:
    array = np.empty(len(items), object)
    for position, item in enumerate(items):
        array[position] = item
    return array


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        list,
        tuple,
        deque,
        iter,
        lambda x: (image for image in x),
        lambda x: [image[None] for image in x],
        lambda x: objects(list(x)),
        Column,
        lambda x: Column(objects(list(x))),
        torch.from_numpy,
        lambda x: torch.from_numpy(x).permute(0, 3, 1, 2),
        lambda x: [torch.from_numpy(image) for image in x],
        lambda x: [torch.from_numpy(image).permute(2, 0, 1) for image in x],
        lambda x: x.transpose(0, 3, 1, 2),
        lambda x: x.tolist(),
    ],
)
def test_containers_of_colour_images_are_one_array(wrap: Callable[[Array], Any]) -> None:
    collated = collate(wrap(RGB), "X")
    assert isinstance(collated, np.ndarray)
    np.testing.assert_array_equal(as_batch(collated, "X", COLOUR_MODEL), RGB)


@pytest.mark.parametrize(
    "wrap", [lambda x: x, list, tuple, torch.from_numpy, lambda x: torch.from_numpy(x)[:, None], lambda x: x.tolist()]
)
@pytest.mark.parametrize("num", [1, 2, 3, 4, 5])
def test_containers_of_grey_images_are_one_array(wrap: Callable[[Array], Any], num: int) -> None:
    collated = collate(wrap(GREY[:num]), "X")
    assert isinstance(collated, np.ndarray)
    np.testing.assert_array_equal(as_batch(collated, "X", GREY_MODEL), GREY[:num, ..., None])


def test_tensors_with_gradients_and_of_bfloat16() -> None:
    tensor = torch.rand(2, 3, 12, 10, requires_grad=True)
    collated = collate(tensor, "X")
    assert isinstance(collated, np.ndarray)
    assert collated.shape == (2, 12, 10, 3)
    half = collate(tensor.to(torch.bfloat16), "X")
    assert isinstance(half, np.ndarray)
    assert half.dtype == np.float32


def test_one_file_and_lists_of_files(tmp_path: Path) -> None:
    image = Image.fromarray(RGB[0])
    image.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert collate("a.png", "X") == ["a.png"]
    assert collate(np.str_("a.png"), "X") == ["a.png"]
    assert collate(tmp_path / "a.png", "X") == [tmp_path / "a.png"]
    assert collate(PurePosixPath("a.png"), "X") == [Path("a.png")]
    assert collate(image, "X") == [image]
    stream = io.BytesIO(content)
    assert collate(stream, "X") == [stream]
    (from_bytes,) = collate(content, "X")
    assert isinstance(from_bytes, io.BytesIO)
    assert from_bytes.getvalue() == content
    assert collate(np.array(["a.png", "b.png"]), "X") == ["a.png", "b.png"]
    assert collate(objects([Path("a.png"), image]), "X") == [Path("a.png"), image]
    assert collate(Column(objects(["a.png", "b.png"])), "X") == ["a.png", "b.png"]
    assert collate(Column(objects(["a.png", "b.png"])[:, None]), "X") == ["a.png", "b.png"]
    assert collate([], "X") == []
    assert collate(iter(()), "X") == []


def test_images_of_different_sizes_stay_a_list() -> None:
    collated = collate([RGB[0], RGB[1, :8], GREY[2], torch.from_numpy(RGB[3]).permute(2, 0, 1)], "X")
    assert isinstance(collated, list)
    assert [image.shape for image in collated] == [(12, 10, 3), (8, 10, 3), (12, 10, 1), (12, 10, 3)]  # type: ignore[union-attr]
    mixed = collate(["a.png", GREY[0]], "X")
    assert mixed[0] == "a.png"
    assert mixed[1].shape == (12, 10, 1)  # type: ignore[union-attr]


def test_rows_of_numbers_are_a_table() -> None:
    assert collate([[1, 2], [3, 4]], "X").shape == (2, 2)  # type: ignore[union-attr]
    assert collate([1.0, 2.0], "X").shape == (2,)  # type: ignore[union-attr]
    assert refusal(lambda: collate([[1, 2], [3]], "X")) == "X has rows of different lengths: 1, 2 values"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "X is a NoneType: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        (3, "X is a int: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        (object(), "X is a object: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        ({"a": 1}, "X is a dict, which has no order of images: give a list or an array"),
        ({"a.png"}, "X is a set, which has no order of images: give a list or an array"),
        ([RGB[0], None], "X[1] is None: leave out images that are missing"),
        ([RGB[0], object()], "X[1] is a object: give an array (N, H, W, C), or a list of paths, arrays and PIL images"),
        ([(RGB[0], "cat")], "X[0] is a tuple that cannot be read as an array: "),
        ([RGB[0], RGB[1, ..., :2]], "X[1] is (12, 10, 2): one image is (H, W), or (H, W, C) with 1, 3 or 4 channels"),
        (RGB[..., :2], "X is (5, 12, 10, 2): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels"),
        (
            np.zeros((2, 3, 12, 3)),
            "X is (2, 3, 12, 3): the channels may be the second axis or the last; give images of which only the last "
            "axis is 1, 3 or 4",
        ),
    ],
)
def test_other_objects_are_refused(images: object, message: str) -> None:
    assert refusal(lambda: collate(images, "X")).startswith(message)


@pytest.mark.parametrize(
    ("shape", "model", "batch"),
    [
        ((12, 10, 3), COLOUR_MODEL, (1, 12, 10, 3)),
        ((12, 10, 4), COLOUR_MODEL, (1, 12, 10, 4)),
        ((12, 10, 1), COLOUR_MODEL, (1, 12, 10, 1)),
        ((12, 10, 3), GREY_MODEL, (1, 12, 10, 3)),
        ((4, 4, 3), COLOUR_MODEL, (1, 4, 4, 3)),
        ((12, 10), COLOUR_MODEL, (1, 12, 10, 1)),
        ((40, 50), GREY_MODEL, (1, 40, 50, 1)),
        ((5, 12, 10), COLOUR_MODEL, (5, 12, 10, 1)),
        ((1, 12, 10), COLOUR_MODEL, (1, 12, 10, 1)),
        ((3, 12, 10), GREY_MODEL, (3, 12, 10, 1)),
        ((4, 12, 10), GREY_MODEL, (4, 12, 10, 1)),
        ((0, 12, 10, 3), COLOUR_MODEL, (0, 12, 10, 3)),
    ],
)
def test_one_image_or_several(shape: tuple[int, ...], model: tuple[int, int, int], batch: tuple[int, ...]) -> None:
    assert as_batch(np.zeros(shape, np.uint8), "images", model).shape == batch


@pytest.mark.parametrize(
    ("shape", "model", "message"),
    [
        (
            (3, 12, 10),
            COLOUR_MODEL,
            "images is (3, 12, 10): 3 grey images, or one image with its 3 channels first; give images[..., None] for "
            "grey images, images[None] for one image",
        ),
        (
            (4, 32, 32),
            COLOUR_MODEL,
            "images is (4, 32, 32): 4 grey images, or one image with its 4 channels first; give images[..., None] for "
            "grey images, images[None] for one image",
        ),
        (
            (7, 120),
            GREY_MODEL,
            "images is (7, 120), which looks like rows of pixels: give images.reshape(-1, 12, 10)",
        ),
        (
            (7, 360),
            COLOUR_MODEL,
            "images is (7, 360), which looks like rows of pixels: give images.reshape(-1, 12, 10, 3)",
        ),
        ((9,), GREY_MODEL, "images is (9,): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels"),
        (
            (2, 1, 9, 9, 3),
            GREY_MODEL,
            "images is (2, 1, 9, 9, 3): images are (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels",
        ),
        ((2, 0, 8, 3), COLOUR_MODEL, "images is (2, 0, 8, 3): images without pixels"),
    ],
)
def test_two_readings_are_refused(shape: tuple[int, ...], model: tuple[int, int, int], message: str) -> None:
    assert refusal(lambda: as_batch(np.zeros(shape, np.uint8), "images", model)) == message


def test_the_ways_that_a_refusal_names_work() -> None:
    image = np.zeros((3, 12, 10), np.uint8)
    assert collate(image[None], "images").shape == (1, 12, 10, 3)  # type: ignore[union-attr]
    assert collate(image[..., None], "images").shape == (3, 12, 10, 1)  # type: ignore[union-attr]
    assert as_image(image, "images").shape == (12, 10, 3)
