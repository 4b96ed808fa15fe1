"""The scale of pixels: told from dtype and values where that is certain, refused in one sentence where it is not."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from timebox.data.images.collate import Array
from timebox.data.images.pixel_range import BYTE, PixelScale, natural_white
from timebox.errors import DataError, TimeboxError, UsageError

RNG = np.random.default_rng(0)
PIXELS: NDArray[np.uint8] = RNG.integers(0, 256, (6, 9, 8), dtype=np.uint8)
DIGITS = RNG.integers(0, 17, (6, 9, 8)).astype(np.float64)


def refusal(call: Callable[[], object], kind: type[TimeboxError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def converted(fitted: Array, scale: object, asked: Array) -> NDArray[np.uint8]:
    (pixels,) = PixelScale.fit([fitted], "X", scale).to_uint8([asked], "X")
    return pixels


# The same images as people have them.
FORMS: dict[str, Array] = {
    "uint8": PIXELS,
    "int64": PIXELS.astype(np.int64),
    "int32": PIXELS.astype(np.int32),
    "uint16": PIXELS.astype(np.uint16),
    "whole float32": PIXELS.astype(np.float32),
    "whole float64": PIXELS.astype(np.float64),
    "float64 / 255": PIXELS / 255,
    "float32 / 255": (PIXELS / 255).astype(np.float32),
    "float16 / 255": (PIXELS / 255).astype(np.float16),
    "a rounding error above 1": PIXELS / 255 * 1.0000000002,
    "1e-7 above 1": np.minimum(PIXELS / 255, 1) + 1e-7,
    "a rounding error below 0": PIXELS / 255 - 1e-9,
}


@pytest.mark.parametrize("asked", FORMS)
@pytest.mark.parametrize("fitted", FORMS)
@pytest.mark.parametrize("scale", [None, "fit"])
def test_every_form_of_the_same_images_gives_the_same_pixels(fitted: str, asked: str, scale: str | None) -> None:
    pixels = converted(FORMS[fitted], scale, FORMS[asked])
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - PIXELS).max() <= ("float16" in asked or "float16" in fitted)


@pytest.mark.parametrize("fitted", ["uint8", "whole float32", "float64 / 255"])
def test_booleans_are_black_and_white(fitted: str) -> None:
    mask = PIXELS > 100
    np.testing.assert_array_equal(converted(FORMS[fitted], None, mask), mask * 255)
    np.testing.assert_array_equal(converted(mask, None, FORMS[fitted]), PIXELS)
    np.testing.assert_array_equal(converted(mask, None, mask.astype(np.int64)), mask * 255)


def test_dark_images_keep_their_scale() -> None:
    dark = PIXELS // 4
    for form in (np.int64, np.float32):
        np.testing.assert_array_equal(converted(PIXELS.astype(form), None, dark.astype(form)), dark)
        np.testing.assert_array_equal(converted(PIXELS, None, dark.astype(form)), dark)
    np.testing.assert_array_equal(converted(PIXELS / 255, None, dark / 255), dark)
    np.testing.assert_array_equal(converted(PIXELS / 255, None, dark), dark)
    assert converted(PIXELS / 255, None, np.zeros((1, 9, 8))).max() == 0
    assert converted(PIXELS, None, np.zeros((1, 9, 8), np.int64)).max() == 0


def test_a_scale_of_the_users_own() -> None:
    np.testing.assert_array_equal(converted(PIXELS / 127.5 - 1, (-1, 1), PIXELS / 127.5 - 1), PIXELS)
    np.testing.assert_array_equal(converted(DIGITS, (0, 16), DIGITS), np.rint(DIGITS * 255 / 16))
    np.testing.assert_array_equal(converted(DIGITS, (0, 16), DIGITS.astype(np.uint8)), np.rint(DIGITS * 255 / 16))
    smooth = PIXELS * 0.99
    np.testing.assert_array_equal(converted(smooth, (0, 255), smooth), np.rint(smooth))
    np.testing.assert_array_equal(converted(PIXELS.astype(float), (0, 255), PIXELS / 255), PIXELS)
    np.testing.assert_array_equal(converted(PIXELS / 255, (0, 1), PIXELS), PIXELS)
    assert converted(DIGITS, "fit", DIGITS).max() == 255
    assert converted(np.full((2, 8, 8), 7.0), "fit", np.full((2, 8, 8), 7.0)).max() == 0


def test_a_few_values_beyond_a_scale_are_clipped() -> None:
    outlier = DIGITS.copy()
    outlier[:, 0, 0] = 99
    assert converted(DIGITS, (0, 16), outlier)[:, 0, 0].tolist() == [255] * 6
    assert converted(DIGITS, "fit", outlier)[:, 0, 0].tolist() == [255] * 6


SCALE_NEEDED = (
    "without scale=(low, high) it must be uint8, lie in 0...1, or be whole numbers of 0...255 that reach 128; give the "
    "values of black and white, or scale='fit'"
)


@pytest.mark.parametrize(
    ("images", "values"),
    [
        (DIGITS, "X is float64 and runs from 0 to 16"),
        (DIGITS.astype(np.int64), "X is int64 and runs from 0 to 16"),
        (np.linspace(-1, 1, 60), "X is float64 and runs from -1 to 1"),
        (np.linspace(0, 9, 60), "X is float64 and runs from 0 to 9"),
        (np.linspace(0, 255, 60), "X is float64 and runs from 0 to 255"),
        (np.arange(60, dtype=np.uint16) * 1000, "X is uint16 and runs from 0 to 59000"),
        (np.arange(-60, 60, dtype=np.int8), "X is int8 and runs from -60 to 59"),
        (np.array([0, 1, 0, 1]), "X is int64 and runs from 0 to 1"),
        (np.linspace(0, 1.01, 60), "X is float64 and runs from 0 to 1.01"),
        (np.linspace(0, 256, 257), "X is float64 and runs from 0 to 256"),
    ],
)
def test_training_images_of_an_unknown_scale_are_refused(images: Array, values: str) -> None:
    assert refusal(lambda: PixelScale.fit([images], "X", None), UsageError) == f"{values}: {SCALE_NEEDED}"


def test_training_images_that_were_divided_twice_are_refused() -> None:
    assert refusal(lambda: PixelScale.fit([PIXELS / 255 / 255], "X", None), UsageError) == (
        "X is float64 and runs from 0 to 0.00392157, which is nearly black on the scale (0, 1): was it divided twice? "
        "Give scale=(low, high), the values of black and white, or scale='fit'"
    )


@pytest.mark.parametrize(
    ("fitted", "scale", "asked", "message"),
    [
        (
            PIXELS,
            None,
            np.linspace(0, 200, 60),
            "X is float64 and runs from 0 to 200: it must be uint8, lie in 0...1, or be whole numbers of 0...255",
        ),
        (
            PIXELS / 255,
            None,
            np.linspace(-2, 2, 60),
            "X is float64 and runs from -2 to 2: it must be uint8, lie in 0...1, or be whole numbers of 0...255",
        ),
        (
            PIXELS / 255,
            None,
            DIGITS,
            "X is float64 and runs from 0 to 16: it must be uint8, lie in 0...1, or be whole numbers of 0...255",
        ),
        (
            PIXELS / 127.5 - 1,
            (-1, 1),
            PIXELS,
            "X is uint8 and runs from 0 to 255, but the training images were on the scale (-1, 1): convert it to that "
            "scale",
        ),
        (
            DIGITS,
            (0, 16),
            DIGITS / 16,
            "X is float64 and runs from 0 to 1, but the training images were on the scale (0, 16): convert it to that "
            "scale",
        ),
        (
            DIGITS,
            "fit",
            DIGITS / 16,
            "X is float64 and runs from 0 to 1, but the training images were on the scale (0, 16): convert it to that "
            "scale",
        ),
        (
            DIGITS.astype(np.uint8),
            "fit",
            DIGITS / 16,
            "X is float64 and runs from 0 to 1, but the training images were on the scale (0, 16): convert it to that "
            "scale",
        ),
        (
            DIGITS,
            (0, 16),
            PIXELS,
            "X is uint8 and runs from 0 to 255, but the training images were on the scale (0, 16): convert it to that "
            "scale",
        ),
    ],
)
def test_images_on_another_scale_than_in_training_are_refused(
    fitted: Array, scale: object, asked: Array, message: str
) -> None:
    assert refusal(lambda: converted(fitted, scale, asked)) == message


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ((1, 0), "scale (1, 0) must be two numbers, the first below the second"),
        ((0, 0), "scale (0, 0) must be two numbers, the first below the second"),
        ((0, np.inf), "scale (0, inf) must be two numbers, the first below the second"),
        ((0,), "scale (0,) must be two numbers, the first below the second"),
        (255, "scale 255 must be two numbers, the first below the second"),
        (("a", "b"), "scale ('a', 'b') must be two numbers, the first below the second"),
        ("wide", "scale 'wide' must be (low, high), 'fit' or None"),
        ("", "scale '' must be (low, high), 'fit' or None"),
        ((0, 1), "X is uint8 and runs from 0 to 255, mostly beyond scale=(0, 1): give its own"),
    ],
)
def test_a_wrong_scale_is_refused(scale: object, message: str) -> None:
    assert refusal(lambda: PixelScale.fit([PIXELS], "X", scale), UsageError) == message


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.array([[1.0, 0], [np.nan, np.nan]]),
            "X has 2 values that are NaN or infinite (inf), the first in image 1: leave out such images",
        ),
        (
            np.array([[np.inf, 0.5]], np.float16),
            "X has 1 value that is NaN or infinite (inf), the first in image 0: leave out such images",
        ),
        (np.zeros(3, complex), "X is complex128: pixels must be real numbers, such as uint8 or float32"),
        (np.zeros(3, "datetime64[s]"), "X is datetime64[s]: pixels must be real numbers, such as uint8 or float32"),
    ],
)
def test_values_that_are_no_pixels_are_refused(images: Array, message: str) -> None:
    assert refusal(lambda: PixelScale.fit([images], "X", None)) == message
    assert refusal(lambda: PixelScale(0, BYTE, BYTE).to_uint8([images], "X")) == message


def test_arrays_of_several_dtypes_are_refused() -> None:
    assert refusal(lambda: PixelScale.fit([PIXELS, PIXELS / 255], "X", None)) == (
        "X mixes arrays of float64 and uint8, whose scales may differ: convert them to one"
    )


def test_no_images_have_any_scale() -> None:
    assert PixelScale(0, BYTE, BYTE).to_uint8([], "X") == []
    assert converted(PIXELS, None, np.zeros((0, 9, 8))).shape == (0, 9, 8)
    assert natural_white([np.zeros((0, 3))]) == 1
