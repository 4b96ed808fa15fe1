"""Images of any size brought to the working size by tensor operations alone, which a model can be shipped with."""

import torch
from torch import Tensor


def batch_fit(images: Tensor, height: int, width: int) -> Tensor:
    """Scaled until they just cover (height, width), antialiased, then cropped at the centre.

    What Pillow's bilinear filter does: every pixel is the mean of those below it, weighted by a triangle as wide as two
    of them, or as two of the image's where that is enlarged. It is exported as it stands: nothing depends on the size
    of the images but through tensors.

    Args:
        images: float32 (N, C, H, W), 0...255.
        height, width: in pixels, 1 or more.
    Returns:
        float32 (N, C, height, width), whole numbers in 0...255.
    """
    rows, columns = _positions(images[0, 0, :, 0]), _positions(images[0, 0, 0, :])
    num_rows, num_columns = rows[-1] + 0.5, columns[-1] + 0.5
    scale = torch.minimum(num_rows / height, num_columns / width)
    down = _weights(rows, num_rows, height, scale)
    across = _weights(columns, num_columns, width, scale)
    return (down @ images @ across.T).round().clamp(0, 255)


def _positions(line: Tensor) -> Tensor:
    """The centres of a line's pixels: 0.5, 1.5, ..."""
    return torch.ones_like(line).cumsum(0) - 0.5


def _weights(positions: Tensor, length: Tensor, num_pixels: int, scale: Tensor) -> Tensor:
    """How much each of a line's pixels adds to each of those that are made of it: float32 (num_pixels, length)."""
    places = torch.arange(num_pixels, dtype=positions.dtype, device=positions.device) + 0.5
    centres = (length - num_pixels * scale) / 2 + places * scale
    weights = (1 - (positions - centres[:, None]).abs() / scale.clamp_min(1.0)).clamp_min(0.0)
    return weights / weights.sum(1, keepdim=True)
