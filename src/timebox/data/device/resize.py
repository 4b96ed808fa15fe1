"""Progressive resizing: small images first, full size at the end."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes go in eighths of the full one: the shapes are few, and each may have to be recorded.
LEVELS = 8
# Pixels: no image is made smaller than this.
MIN_SIDE = 8


@dataclass(frozen=True)
class Resizing:
    """The size of training images as a function of progress.

    A step on images of three quarters of the side takes little more than half the time, so the same budget buys more
    epochs; what was learnt on small images carries over to large ones (fulcrumresearch/cifar-10-speedrun trains
    24 → 28 → 32 pixels). The network must take images of any size.

    Args:
        start_size: share of the full side at the beginning, above 0, at most 1.
        full_size_at: progress, 0...1, from which images are whole; the size grows evenly until then.
    """

    start_size: float = 1.0
    full_size_at: float = 0.0

    def stages(self) -> list[tuple[float, float]]:
        """Where each size begins, as progress, and its share of the full side, in eighths, in order."""
        if self.start_size == 1.0 or self.full_size_at == 0.0:
            return [(0.0, 1.0)]
        first = ceil(LEVELS * self.start_size - 1e-9)
        speed = (1.0 - self.start_size) / self.full_size_at
        shares = [level / LEVELS for level in range(first + 1, LEVELS)]
        grown = [((share - self.start_size) / speed, share) for share in shares]
        return [(0.0, first / LEVELS), *grown, (self.full_size_at, 1.0)]

    def share_at(self, progress: float) -> float:
        """Share of the full side for a step that begins at ``progress``, 0...1."""
        return [share for begin, share in self.stages() if begin <= progress][-1]

    def cost_at(self, progress: float) -> float:
        """How long a step takes that begins at ``progress``, as a share of one on whole images.

        It goes with the number of pixels: measured on two CPU cores, 0.53 to 0.58 at three quarters of the side, 0.70
        to 0.77 at seven eighths.
        """
        return self.share_at(progress) ** 2

    def steps_in(self, full_steps: float, progress: float = 0.0) -> float:
        """How many steps the rest of a schedule from ``progress`` on has, in the time of so many full steps."""
        if progress >= 1.0:
            return full_steps
        stages = [*self.stages(), (1.0, 1.0)]
        lengths = (max(0.0, end - max(begin, progress)) / share**2 for (begin, share), (end, _) in pairwise(stages))
        return full_steps * sum(lengths) / (1.0 - progress)


WHOLE = Resizing()


def scaled_size(height: int, width: int, share: float) -> tuple[int, int]:
    """(height, width) in pixels of an image at a share of its sides; never below 8, unless the image is."""

    def scaled(side: int) -> int:
        return max(min(MIN_SIDE, side), round(side * share))

    return scaled(height), scaled(width)


def batch_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Floating-point images (N, C, H, W), channels_last, bilinearly resized with antialiasing; as they are where the
    size is theirs."""
    if images.shape[2:] == (height, width):
        return images
    if images.is_cuda:
        return resized_by_products(images, height, width)
    return F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)


def resized_by_products(images: Tensor, height: int, width: int) -> Tensor:
    """The same as two matrix products, first of the columns, then of the rows. On a GPU torch's own gives each pixel of
    an image one thread, which goes through all images and channels."""
    num_images, channels, rows, columns = images.shape
    by_columns = _weights(rows, height, 1, images.device)
    by_rows = _weights(columns, width, channels, images.device).T
    flat = images.permute(0, 2, 3, 1).reshape(num_images, rows, columns * channels)
    resized = (by_columns @ flat).view(num_images * height, columns * channels) @ by_rows
    return resized.view(num_images, height, width, channels).permute(0, 3, 1, 2)


@cache
def _weights(before: int, after: int, channels: int, device: torch.device) -> Tensor:
    """What each of ``before`` pixels in a line, of so many values, contributes to each of ``after``, value by value:
    float32 (after * channels, before * channels)."""
    each = torch.eye(before)[None, None]
    weights = F.interpolate(each, size=(after, before), mode="bilinear", antialias=True)[0, 0]
    return torch.kron(weights, torch.eye(channels)).to(device)
