"""Resizes images to the working size with tensor operations only, so that a model can be exported with it."""

import torch
from torch import Tensor

from timebox.data.images.decode import CROP

# Grey levels. At simple ratios of the sides some exact results lie half-way between two grey levels (64 -> 32: one
# pixel in 64), and the error of float32 sums decides which way they are rounded. Adding this before rounding sends all
# of them up, as in Pillow.
BELOW_HALF = 2.0**-10


def batch_fit(images: Tensor, height: int, width: int, fit: str = CROP) -> Tensor:
    """Resize images as decode_image does: floating point (N, C, H, W), 0...255, to whole numbers (N, C, height, width).

    The filter is Pillow's bilinear filter: each pixel is a mean weighted by a triangle of two output pixels' width, or
    of two input pixels' width when enlarging. The size of the images enters only as tensors, so that an export holds
    for any size.
    """
    down, across = fit_weights(images, height, width, fit)
    return (down @ images @ across.T + BELOW_HALF).round().clamp(0, 255)


def fit_weights(images: Tensor, height: int, width: int, fit: str = CROP) -> tuple[Tensor, Tensor]:
    """The interpolation matrices of :func:`batch_fit`, ``down`` (height, H) and ``across`` (width, W).

    Its result before rounding is ``down @ images @ across.T``. Only the size and dtype of the images are used.
    """
    rows, columns = _centres(images[0, 0, :, 0]), _centres(images[0, 0, 0, :])
    num_rows, num_columns = (rows[-1] + 1) / 2, (columns[-1] + 1) / 2
    is_tall = num_rows * width > num_columns * height
    # The side that determines the scale: ``before`` input pixels become ``after`` output pixels.
    by_rows = ~is_tall if fit == CROP else is_tall
    before = torch.where(by_rows, num_rows, num_columns)
    after = torch.where(by_rows, torch.full_like(num_rows, height), torch.full_like(num_rows, width))
    weights = _crop_weights if fit == CROP else _letterbox_weights
    return weights(rows, height, before, after), weights(columns, width, before, after)


def _centres(line: Tensor) -> Tensor:
    """The centres of the pixels of a line, in half pixels: 1, 3, 5, ..."""
    return 2 * torch.ones_like(line).cumsum(0) - 1


def _crop_weights(centres: Tensor, num_pixels: int, before: Tensor, after: Tensor) -> Tensor:
    """Weights of the pixels of a line in the output pixels of its scaled centre: (num_pixels, length)."""
    outputs = 2 * torch.arange(num_pixels, dtype=centres.dtype, device=centres.device) + 1
    return _weights(centres - (centres[-1] + 1) / 2, outputs - num_pixels, before, after)


def _letterbox_weights(centres: Tensor, num_pixels: int, before: Tensor, after: Tensor) -> Tensor:
    """Weights of the pixels of a line in an output with padding, whose weights are zero: (num_pixels, length)."""
    outputs = torch.arange(num_pixels, dtype=centres.dtype, device=centres.device)
    length = (centres[-1] + 1) / 2
    inside = (length * after / before).round().clamp(1, num_pixels)
    first = ((num_pixels - inside) / 2).floor()
    weights = _weights(centres - length, 2 * (outputs - first) + 1 - inside, length, inside)
    is_inside = (outputs >= first) & (outputs < first + inside)
    return torch.where(is_inside[:, None], weights, torch.zeros_like(weights))


def _weights(centres: Tensor, outputs: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Triangle filter weights, each row with the sum 1: (number of outputs, number of inputs).

    ``centres`` and ``outputs`` are those of the input and output pixels, in half pixels from the middle of the line.
    Outputs lie ``before / after`` input pixels apart. All arguments are whole numbers, and so are the distances times
    ``2 * after``: up to 2^24 they are exact in float32 until the division.
    """
    distances = (centres * after - outputs[:, None] * before).abs()
    weights = (1 - distances / (2 * torch.maximum(before, after))).clamp_min(0.0)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
