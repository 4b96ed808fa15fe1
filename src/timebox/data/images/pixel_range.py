"""The scale of pixel values in arrays: 0...255 or 0...1, inferred from dtype and values, and conversion to uint8."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.data.images.collate import Array
from timebox.errors import DataError, UsageError

# Values this far outside 0...1 are rounding errors: a quarter of a grey level, and float16's next value above 1.
ROUNDING = 0.25 / 255
# Whole numbers whose largest is below may be dark images of 0...255, or of another scale, such as 0...16.
MIN_BRIGHT = 128
# Training images in 0...1 that are darker than this were probably divided by 255 twice.
MIN_WHITE_SHARE = 1 / 64
# Values that may lie beyond the scale and are clipped: more of them show that the images are on another scale.
MAX_SHARE_BEYOND = 0.5
UNIT, BYTE = 1.0, 255.0
FIT = "fit"


@dataclass(frozen=True)
class PixelScale:
    """The scale of the images that a model was trained on.

    Attributes:
        low, high: the values of black and white.
        natural_white: 255 or 1, if dtype and values of these images show it, black being 0; see :func:`natural_white`.
        is_natural: whether low and high are the natural ones, not a user's.
    """

    low: float
    high: float
    natural_white: float | None
    is_natural: bool = True

    @classmethod
    def fit(cls, arrays: Sequence[Array], name: str, scale: object) -> "PixelScale":
        """The scale of training images.

        Args:
            scale: (low, high), ``"fit"`` for the smallest and the largest value, or None for the natural scale.
        Raises:
            UsageError: for another ``scale``, one that the images do not lie in, or where the images show none.
            DataError: for values that are not finite, or no numbers.
        """
        check_numbers(arrays, name)
        white = natural_white(arrays)
        if scale is None:
            return cls(0.0, _checked_white(arrays, name, white), white)
        if isinstance(scale, str):
            if scale != FIT:
                raise UsageError(f"scale {scale!r} must be (low, high), 'fit' or None")
            low, high = extremes(arrays)
            return cls(low, high if high > low else low + 1.0, white, is_natural=False)
        low, high = _read_scale(scale)
        if _is_beyond(arrays, low, high):
            raise UsageError(f"{describe_values(arrays, name)}, mostly beyond scale={_pair(low, high)}: give its own")
        return cls(low, high, white if (low, high) == (0.0, white) else None, is_natural=False)

    def to_uint8(self, arrays: Sequence[Array], name: str) -> list[NDArray[np.uint8]]:
        """Arrays of one dtype as uint8, converted to this scale where theirs is certain. Raises DataError otherwise."""
        if not arrays:
            return []
        check_numbers(arrays, name)
        white = natural_white(arrays, self.natural_white)
        if white is None and self.is_natural:
            raise DataError(
                f"{describe_values(arrays, name)}: it must be uint8, lie in 0...1, or be whole numbers of 0...255"
            )
        factor = 1.0 if white is None or self.natural_white is None else white / self.natural_white
        low, high = self.low * factor, self.high * factor
        is_darker = white == UNIT and self.natural_white is None and high > 2 and not all(map(_is_whole, arrays))
        if not self.is_natural and (is_darker or _is_beyond(arrays, low, high)):
            raise DataError(
                f"{describe_values(arrays, name)}, but the training images were on the scale "
                f"{_pair(self.low, self.high)}: convert it to that scale"
            )
        return [to_uint8(array, low, high) for array in arrays]


def natural_white(arrays: Sequence[Array], fitted_white: float | None = None) -> float | None:
    """The value of white that dtype and values show, black being 0: 255 or 1; None where they show neither.

    uint8 has 255, and booleans have 1. Floating-point values within 0...1 have 1, a rounding error allowed. Whole
    numbers within 0...255 of other types have 255, if one is at least 128 or 255 is what images were fitted with.

    Args:
        arrays: at least one, of one dtype, without NaN and infinities.
        fitted_white: that of the images that a model was trained on, if known.
    """
    dtype = arrays[0].dtype
    if dtype == np.bool_:
        return UNIT
    if dtype == np.uint8:
        return BYTE
    low, high = extremes(arrays)
    if dtype.kind == "f" and low >= -ROUNDING and high <= 1 + ROUNDING:
        return UNIT
    if not 0 <= low <= high <= BYTE or not all(map(_is_whole, arrays)):
        return None
    if fitted_white == UNIT and high <= 1:
        return UNIT
    return BYTE if high >= MIN_BRIGHT or fitted_white == BYTE or high == 0 else None


def extremes(arrays: Sequence[Array]) -> tuple[float, float]:
    """The smallest and the largest value; 0 and 0 of no values."""
    with_values = [array for array in arrays if array.size]
    if not with_values:
        return 0.0, 0.0
    return min(float(array.min()) for array in with_values), max(float(array.max()) for array in with_values)


def check_numbers(arrays: Sequence[Array], name: str) -> None:
    """Raise DataError unless all arrays have one dtype, of real numbers, and no value is NaN or infinite."""
    dtypes = sorted({str(array.dtype) for array in arrays})
    if len(dtypes) > 1:
        raise DataError(f"{name} mixes arrays of {' and '.join(dtypes)}, whose scales may differ: convert them to one")
    if arrays and arrays[0].dtype.kind not in "biuf":
        raise DataError(f"{name} is {dtypes[0]}: pixels must be real numbers, such as uint8 or float32")
    if not arrays or arrays[0].dtype.kind != "f":
        return
    images = arrays if len(arrays) > 1 else list(arrays[0])
    counts = [int(np.size(image) - np.isfinite(image).sum()) for image in images]
    if num := sum(counts):
        first = next(position for position, count in enumerate(counts) if count)
        values = "value that is" if num == 1 else "values that are"
        raise DataError(
            f"{name} has {num:,} {values} NaN or infinite (inf), the first in image {first}: leave out such images"
        )


def describe_values(arrays: Sequence[Array], name: str) -> str:
    """``X is float64 and runs from 0 to 9``."""
    low, high = extremes(arrays)
    return f"{name} is {arrays[0].dtype} and runs from {low:g} to {high:g}"


def to_uint8(array: Array, low: float, high: float) -> NDArray[np.uint8]:
    """Pixels with the values ``low`` for black and ``high`` for white as uint8; values beyond are clipped."""
    if array.dtype == np.uint8 and (low, high) == (0.0, BYTE):
        return array.astype(np.uint8, copy=False)
    scaled = (array.astype(np.float64) - low) * (BYTE / (high - low))
    return np.rint(np.clip(scaled, 0, BYTE)).astype(np.uint8)


def _checked_white(arrays: Sequence[Array], name: str, white: float | None) -> float:
    """The natural white of training images. Raises UsageError where they have none, or all of them are nearly black."""
    if white is None:
        raise UsageError(
            f"{describe_values(arrays, name)}: without scale=(low, high) it must be uint8, lie in 0...1, or be whole "
            f"numbers of 0...255 that reach {MIN_BRIGHT}; give the values of black and white, or scale='fit'"
        )
    if arrays[0].dtype.kind == "f" and white == UNIT and 0 < extremes(arrays)[1] < MIN_WHITE_SHARE:
        raise UsageError(
            f"{describe_values(arrays, name)}, which is nearly black on the scale (0, 1): was it divided twice? Give "
            "scale=(low, high), the values of black and white, or scale='fit'"
        )
    return white


def _read_scale(scale: object) -> tuple[float, float]:
    """Two finite numbers, the first below the second. Raises UsageError."""
    try:
        low, high = map(float, scale)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high or not math.isfinite(high - low):
        raise UsageError(f"scale {scale!r} must be two numbers, the first below the second")
    return low, high


def _is_beyond(arrays: Sequence[Array], low: float, high: float) -> bool:
    """Whether most values that are not black lie above ``high``, or most that are not white below ``low``."""
    margin = ROUNDING * (high - low)
    smallest, largest = extremes(arrays)
    if low - margin <= smallest <= largest <= high + margin:
        return False
    values = np.concatenate([array.ravel() for array in arrays])
    num_above, num_not_black = np.count_nonzero(values > high + margin), np.count_nonzero(values > low + margin)
    num_below, num_not_white = np.count_nonzero(values < low - margin), np.count_nonzero(values < high - margin)
    return bool(num_above > MAX_SHARE_BEYOND * num_not_black or num_below > MAX_SHARE_BEYOND * num_not_white)


def _is_whole(array: Array) -> bool:
    return array.dtype.kind != "f" or bool((np.rint(array) == array).all())


def _pair(low: float, high: float) -> str:
    return f"({low:g}, {high:g})"
