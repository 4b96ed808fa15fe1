"""Images of any size brought to the working size by tensor operations alone, which a model can be shipped with."""

import torch
from torch import Tensor

from timebox.data.decoding import CROP


def batch_fit(images: Tensor, height: int, width: int, fit: str = CROP) -> Tensor:
    """Scaled until they just cover (height, width), antialiased, then cropped at the centre; or, as a letterbox, until
    they just fit in, black beside them.

    What Pillow's bilinear filter does: every pixel is the mean of those below it, weighted by a triangle as wide as two
    of them, or as two of the image's where that is enlarged. It is exported as it stands: nothing depends on the size
    of the images but through tensors.

    Args:
        images: float32 (N, C, H, W), 0...255.
        height, width: in pixels, 1 or more.
        fit: ``crop`` or ``letterbox``.
    Returns:
        float32 (N, C, height, width), whole numbers in 0...255.
    """
    rows, columns = _positions(images[0, 0, :, 0]), _positions(images[0, 0, 0, :])
    num_rows, num_columns = rows[-1] + 0.5, columns[-1] + 0.5
    if fit == CROP:
        scale = torch.minimum(num_rows / height, num_columns / width)
        down, across = _cut(rows, num_rows, height, scale), _cut(columns, num_columns, width, scale)
    else:
        scale = torch.maximum(num_rows / height, num_columns / width)
        down, across = _whole(rows, num_rows, height, scale), _whole(columns, num_columns, width, scale)
    return (down @ images @ across.T).round().clamp(0, 255)


def _positions(line: Tensor) -> Tensor:
    """The centres of a line's pixels: 0.5, 1.5, ..."""
    return torch.ones_like(line).cumsum(0) - 0.5


def _cut(positions: Tensor, length: Tensor, num_pixels: int, scale: Tensor) -> Tensor:
    """How much each of a line's pixels adds to each of those made of its middle: float32 (num_pixels, length)."""
    places = torch.arange(num_pixels, dtype=positions.dtype, device=positions.device) + 0.5
    return _weights(positions, (length - num_pixels * scale) / 2 + places * scale, scale)


def _whole(positions: Tensor, length: Tensor, num_pixels: int, scale: Tensor) -> Tensor:
    """The same where all of a line goes into the middle of the pixels; those beside it get nothing."""
    places = torch.arange(num_pixels, dtype=positions.dtype, device=positions.device)
    inside = (length / scale).round().clamp(1, num_pixels)
    first = ((num_pixels - inside) / 2).floor()
    own_scale = length / inside
    weights = _weights(positions, (places - first + 0.5) * own_scale, own_scale)
    is_inside = (places >= first) & (places < first + inside)
    return torch.where(is_inside[:, None], weights, torch.zeros_like(weights))


def _weights(positions: Tensor, centres: Tensor, scale: Tensor) -> Tensor:
    """A triangle about each centre, of which each row adds up to one."""
    weights = (1 - (positions - centres[:, None]).abs() / scale.clamp_min(1.0)).clamp_min(0.0)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-12)
