"""Progressive resizing: training begins on small images and ends at full size."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes are multiples of 1/8 of the full size: each new shape may cost a CUDA graph capture.
NUM_LEVELS = 8
MIN_SIDE = 8  # pixels


@dataclass(frozen=True)
class Resizing:
    """Size of the training images as a function of progress, for networks that accept images of any size.

    A step at three quarters of the side takes little more than half the time, so the same budget buys more epochs;
    features learnt on small images carry over (fulcrumresearch/cifar-10-speedrun trains at 24 → 28 → 32 pixels).

    Args:
        start_size: scale of the image's side at the start of training, above 0, at most 1.
        full_size_at: progress, 0...1, from which images have full size; the scale grows linearly until then.
        input_scale: side of the network's input at full size as a multiple of the image's side, above 0.
        min_side: smallest side of the network's input in pixels.
    """

    start_size: float = 1.0
    full_size_at: float = 0.0
    input_scale: float = 1.0
    min_side: int = MIN_SIDE

    def input_size(self, height: int, width: int, progress: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels of the network's input for images of that size, for a step that begins at
        ``progress``, 0...1."""
        return scaled_size(height, width, self.input_scale * self.scale_at(progress), self.min_side)

    def stages(self) -> list[tuple[float, float]]:
        """(progress at which the stage begins, scale of the side in multiples of 1/8), in order."""
        if self.start_size == 1.0 or self.full_size_at == 0.0:
            return [(0.0, 1.0)]
        first = ceil(NUM_LEVELS * self.start_size - 1e-9)
        speed = (1.0 - self.start_size) / self.full_size_at
        scales = [level / NUM_LEVELS for level in range(first + 1, NUM_LEVELS)]
        growing = [((scale - self.start_size) / speed, scale) for scale in scales]
        return [(0.0, first / NUM_LEVELS), *growing, (self.full_size_at, 1.0)]

    def scale_at(self, progress: float) -> float:
        """Scale of the side, above 0, at most 1, for a step that begins at ``progress``, 0...1."""
        return [scale for begin, scale in self.stages() if begin <= progress][-1]

    def cost_at(self, progress: float) -> float:
        """Duration of a step that begins at ``progress``, relative to a step at full size: the share of the pixels.

        Measured on two CPU cores: 0.53 to 0.58 at three quarters of the side, 0.70 to 0.77 at seven eighths.
        """
        return self.scale_at(progress) ** 2

    def steps_in(self, full_steps: float, progress: float = 0.0) -> float:
        """Number of steps from ``progress`` to the end, in the time that ``full_steps`` steps at full size take."""
        if progress >= 1.0:
            return full_steps
        stages = [*self.stages(), (1.0, 1.0)]
        lengths = (max(0.0, end - max(begin, progress)) / scale**2 for (begin, scale), (end, _) in pairwise(stages))
        return full_steps * sum(lengths) / (1.0 - progress)


FULL_SIZE = Resizing()


def scaled_size(height: int, width: int, scale: float, min_side: int = MIN_SIDE) -> tuple[int, int]:
    """(height, width) in pixels, each ``scale`` times as large and ``min_side`` or more."""
    return max(min_side, round(height * scale)), max(min_side, round(width * scale))


def batch_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Resize bilinearly with antialiasing: (N, C, H, W), channels_last, to (N, C, height, width).

    Images are floating point, or uint8, which a CPU resizes several times faster; the result is rounded then.
    """
    if images.shape[2:] == (height, width):
        return images
    if images.is_cuda:
        return resize_by_matmul(images, height, width)
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)


def resize_by_matmul(images: Tensor, height: int, width: int) -> Tensor:
    """:func:`batch_resize` as two matrix products.

    Faster on a GPU than F.interpolate, which gives each output position one thread that loops over images and channels.
    """
    num_images, channels, rows, columns = images.shape
    by_columns = _weights(rows, height, 1, images.device)
    by_rows = _weights(columns, width, channels, images.device).T
    flat = images.permute(0, 2, 3, 1).reshape(num_images, rows, columns * channels)
    resized = (by_columns @ flat).view(num_images * height, columns * channels) @ by_rows
    return resized.view(num_images, height, width, channels).permute(0, 3, 1, 2)


@cache
def _weights(before: int, after: int, channels: int, device: torch.device) -> Tensor:
    """Interpolation weights of a line with interleaved channels: float32 (after * channels, before * channels)."""
    each = torch.eye(before)[None, None]
    weights = F.interpolate(each, size=(after, before), mode="bilinear", antialias=True)[0, 0]
    return torch.kron(weights, torch.eye(channels)).to(device)
