"""Images of any size brought to the working size by tensor operations alone, which a model can be shipped with."""

import torch
from torch import Tensor

from timebox.data.images.decode import CROP

# Grey levels. Where the sides have a simple ratio, some pixels are exactly half-way between two grey levels (64 -> 32:
# one in 64), and float32 sums in another order round them the other way. Rounding changes direction this far below
# the half instead, where no pixel of such images lies; halves go up, as Pillow's do.
BELOW_HALF = 2.0**-10


def batch_fit(images: Tensor, height: int, width: int, fit: str = CROP) -> Tensor:
    """Scaled until they just cover (height, width), antialiased, then cropped at the centre; or, as a letterbox, until
    they just fit in, black beside them.

    What Pillow's bilinear filter does: every pixel is the mean of those below it, weighted by a triangle as wide as two
    of them, or as two of the image's where that is enlarged. It is exported as it stands: nothing depends on the size
    of the images but through tensors.

    Args:
        images: floating point (N, C, H, W), 0...255.
        height, width: in pixels, 1 or more.
        fit: ``crop`` or ``letterbox``.
    Returns:
        (N, C, height, width) of the images' type, whole numbers in 0...255.
    """
    down, across = fit_weights(images, height, width, fit)
    return (down @ images @ across.T + BELOW_HALF).round().clamp(0, 255)


def fit_weights(images: Tensor, height: int, width: int, fit: str = CROP) -> tuple[Tensor, Tensor]:
    """The linear part of :func:`batch_fit`, before rounding: ``down @ images @ across.T``.

    Args:
        images: floating point (N, C, H, W); only their size and type count.
        height, width, fit: as for :func:`batch_fit`.
    Returns:
        ``down`` (height, H) and ``across`` (width, W), of the images' type.
    """
    rows, columns = _centres(images[0, 0, :, 0]), _centres(images[0, 0, 0, :])
    num_rows, num_columns = (rows[-1] + 1) / 2, (columns[-1] + 1) / 2
    is_tall = num_rows * width > num_columns * height
    # The side that decides the scale: ``before`` of the image's pixels become ``after``.
    by_rows = ~is_tall if fit == CROP else is_tall
    before = torch.where(by_rows, num_rows, num_columns)
    after = torch.where(by_rows, torch.full_like(num_rows, height), torch.full_like(num_rows, width))
    weights = _cut if fit == CROP else _whole
    return weights(rows, height, before, after), weights(columns, width, before, after)


def _centres(line: Tensor) -> Tensor:
    """The centres of a line's pixels in half pixels: 1, 3, 5, ..."""
    return 2 * torch.ones_like(line).cumsum(0) - 1


def _cut(centres: Tensor, num_pixels: int, before: Tensor, after: Tensor) -> Tensor:
    """How much each of a line's pixels adds to each of those made of its middle: (num_pixels, length)."""
    places = 2 * torch.arange(num_pixels, dtype=centres.dtype, device=centres.device) + 1
    return _weights(centres - (centres[-1] + 1) / 2, places - num_pixels, before, after)


def _whole(centres: Tensor, num_pixels: int, before: Tensor, after: Tensor) -> Tensor:
    """The same where all of a line goes into the middle of the pixels; those beside it get nothing."""
    places = torch.arange(num_pixels, dtype=centres.dtype, device=centres.device)
    length = (centres[-1] + 1) / 2
    inside = (length * after / before).round().clamp(1, num_pixels)
    first = ((num_pixels - inside) / 2).floor()
    weights = _weights(centres - length, 2 * (places - first) + 1 - inside, length, inside)
    is_inside = (places >= first) & (places < first + inside)
    return torch.where(is_inside[:, None], weights, torch.zeros_like(weights))


def _weights(centres: Tensor, places: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """A triangle about each place, of which each row adds up to one.

    Places lie ``before / after`` pixels apart. All arguments are whole numbers, and so are the distances times
    ``2 * after``: nothing is rounded until they are divided, up to 2^24.

    Args:
        centres, places: from the middle of the line, in half pixels of the image and of the result.
    """
    distances = (centres * after - places[:, None] * before).abs()
    weights = (1 - distances / (2 * torch.maximum(before, after))).clamp_min(0.0)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
