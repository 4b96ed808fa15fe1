"""Augmentation of whole batches on the device: random crop, horizontal flip, cutout, mixup and normalisation.

Every function is pure. Random numbers come from :func:`batch_uniform`, a hash of (seed, epoch, image), so that the
augmentation of an image depends neither on the order of the batches nor on the number of devices.

Images are uint8 (N, H, W, C) until :func:`batch_normalize` returns floating point (N, C, H, W) in channels_last, which
is the same memory order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_CHUNK_IMAGES = 4096  # images converted to int32 at once for exact sums of squares: 50 MB of 32x32 RGB


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and standard deviation of each channel, of pixels scaled to 0...1: float32 (C,) each."""

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> "ChannelStatistics":
        """The statistics on ``device``."""
        return ChannelStatistics(self.mean.to(device), self.std.to(device))


def _mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash with full avalanche (C. Wellons, "Prospecting for hash functions", lowbias32).

    In int64: torch does not have unsigned arithmetic on every device.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def batch_hash(seed: int, stream: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Random 32-bit integers as a function of (seed, stream, epoch, image): int64 (N,), each in [0, 2**32).

    Args:
        seed: the run's seed, 0 or more.
        stream: number of the random variable, so that two variables of one image are independent.
        epochs, indices: int64 (N,), epoch of each image and its index in the data set.
    """
    start = torch.full_like(indices, (seed * 0x9E3779B1 + stream * 0x85EBCA77) & _MASK)
    return _mix(_mix(_mix(start) ^ (epochs & _MASK)) ^ (indices & _MASK))


def batch_uniform(seed: int, stream: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) as a function of (seed, stream, epoch, image): float64 (N,)."""
    return batch_hash(seed, stream, epochs, indices).double() / 2.0**32


def batch_seed(seed: int, stream: int, number: int, rank: int) -> int:
    """A seed as a function of (seed, stream, batch number, rank), 0...2**32."""
    return int(batch_hash(seed, stream, torch.tensor([number]), torch.tensor([rank])))


def epoch_order(seed: int, epoch: int, num_images: int, device: torch.device) -> Tensor:
    """The order in which one epoch visits the images: int64 (num_images,), on ``device``."""
    indices = torch.arange(num_images, device=device)
    return batch_hash(seed, 0, torch.full_like(indices, epoch), indices).argsort(stable=True)


def batch_crop_and_flip(
    images: Tensor,
    indices: Tensor,
    shift_y: Tensor | None = None,
    shift_x: Tensor | None = None,
    is_flipped: Tensor | None = None,
) -> Tensor:
    """Random crop with reflection padding, then horizontal flip, of selected images.

    Args:
        images: (N, H, W, C), contiguous, any dtype of numpy.
        indices: int64 (M,), the selected images, 1 or more.
        shift_y, shift_x: int64 (M,), offset of the crop in pixels, at most H - 1 and W - 1 either way; None for none.
        is_flipped: bool (M,), True to flip an image left to right; None to flip none.
    Returns:
        (M, H, W, C) of the same dtype.
    """
    if shift_y is None and shift_x is None and is_flipped is None:
        return images.index_select(0, indices)
    gather = _gather_pixels if images.is_cuda else _gather_rows
    return gather(images, indices, shift_y, shift_x, is_flipped)


def _gather_pixels(
    images: Tensor, indices: Tensor, shift_y: Tensor | None, shift_x: Tensor | None, is_flipped: Tensor | None
) -> Tensor:
    """:func:`batch_crop_and_flip` by one index for each pixel: a single kernel on a GPU, but slow on a CPU."""
    rows, columns = (torch.arange(side, device=images.device)[None] for side in images.shape[1:3])
    if shift_y is not None:
        rows = _reflect(rows + shift_y[:, None], images.shape[1])
    if shift_x is not None:
        columns = _reflect(columns + shift_x[:, None], images.shape[2])
    if is_flipped is not None:
        columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
    return images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def _gather_rows(
    images: Tensor, indices: Tensor, shift_y: Tensor | None, shift_x: Tensor | None, is_flipped: Tensor | None
) -> Tensor:
    """:func:`batch_crop_and_flip` by whole rows of pixels. On a CPU ``index_select`` and numpy copy them as a block,
    twenty times faster than an index for each pixel, or than ``torch.where``."""
    (_, height, width, channels), num_images = images.shape, len(indices)
    if shift_y is None:
        cropped = images.index_select(0, indices)
    else:
        rows = indices[:, None] * height + _reflect(torch.arange(height) + shift_y[:, None], height)
        cropped = images.view(-1, width * channels).index_select(0, rows.flatten())
        cropped = cropped.view(num_images, height, width, channels)
    if shift_x is not None:
        cropped = _shift_columns(cropped, shift_x)
    if is_flipped is not None:
        chosen = torch.arange(num_images) + num_images * is_flipped
        cropped = torch.cat((cropped, cropped.flip(2))).index_select(0, chosen)
    return cropped


def _shift_columns(images: Tensor, shift_x: Tensor) -> Tensor:
    """Shift each image of (N, H, W, C) to the left by its number of pixels, with reflection padding."""
    (num_images, height, width, channels), reach = images.shape, int(shift_x.abs().max())
    padded = images.new_empty(num_images, height, width + 2 * reach, channels)
    padded[:, :, reach : reach + width] = images
    padded[:, :, :reach] = images[:, :, 1 : reach + 1].flip(2)
    padded[:, :, reach + width :] = images[:, :, width - 1 - reach : width - 1].flip(2)
    # All shifts of each image as overlapping views of its padded rows; one of them is copied.
    row = padded.stride(1)
    views = padded.as_strided((num_images, 2 * reach + 1, height, width * channels), (height * row, channels, row, 1))
    shifted = views.numpy()[np.arange(num_images), (shift_x + reach).numpy()]
    return torch.from_numpy(shifted).view(num_images, height, width, channels)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Reflect positions outside [0, size) at the edge pixel, which is not repeated."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def random_flips(seed: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Random horizontal flips, drawn anew in each epoch with probability 1/2: bool (N,)."""
    return batch_hash(seed, 1, epochs, indices) & 1 == 1


def alternating_flips(seed: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Alternating flips: each image is flipped in every second epoch, and a random bit decides in which it starts.

    Bool (N,). Source: K. Jordan, arXiv 2404.00498, section 3.6.
    """
    return (batch_hash(seed, 1, torch.zeros_like(epochs), indices) + epochs) & 1 == 1


def batch_cutout(images: Tensor, centre_y: Tensor, centre_x: Tensor, size: int) -> Tensor:
    """Cutout: set a square of ``size`` x ``size`` pixels to zero (DeVries & Taylor, arXiv 1708.04552).

    Args:
        images: floating point (N, C, H, W), normalised, so that zero is the mean of the data.
        centre_y, centre_x: int64 (N,), centre of the square in pixels. It may extend beyond the image.
    """

    def inside(centre: Tensor, length: int) -> Tensor:
        start = centre - size // 2
        offset = torch.arange(length, device=images.device) - start[:, None]
        return (offset >= 0) & (offset < size)

    hole = inside(centre_y, images.shape[2])[:, :, None] & inside(centre_x, images.shape[3])[:, None, :]
    # On the (N, C, H, W) view masked_fill would return a tensor that is not channels_last.
    return images.permute(0, 2, 3, 1).masked_fill(hole[..., None], 0.0).permute(0, 3, 1, 2)


def batch_mixup(images: Tensor, others: Tensor, weight: Tensor) -> Tensor:
    """Mixup: the weighted mean of two batches (Zhang et al., arXiv 1710.09412).

    Args:
        images, others: floating point (N, H, W, C), or targets (N, num_classes).
        weight: float32 (N,), 0...1, weight of ``others``; 0 leaves an image unchanged.
    """
    return torch.lerp(images, others, weight.view(-1, *(1 for _ in images.shape[1:])))


def batch_normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalise uint8 (N, H, W, C) to float32 (N, C, H, W), channels_last, with :class:`ChannelStatistics`."""
    scale, offset = 1.0 / (255.0 * std), -mean / std
    if images.is_cuda:
        return torch.addcmul(offset, images, scale).permute(0, 3, 1, 2)
    # In rows of pixels: a CPU is ten times slower where the constants repeat every few numbers.
    width = images.shape[2]
    rows = torch.addcmul(offset.repeat(width), images.flatten(2), scale.repeat(width))
    return rows.view(images.shape).permute(0, 3, 1, 2)


def batch_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, std), float32 (C,), of uint8 (N, H, W, C) scaled to 0...1, on the device without a synchronisation.

    From exact sums, as :func:`timebox.data.channel_statistics` of NumPy arrays.
    """
    sums = torch.zeros(2, images.shape[3], dtype=torch.int64, device=images.device)
    for chunk in images.split(_CHUNK_IMAGES):
        wide = chunk.int()
        sums[0] += wide.sum((0, 1, 2))
        sums[1] += wide.square().sum((0, 1, 2))
    mean, square = sums.double() / images[..., 0].numel()
    variance = (square - mean.square()).clamp_min(0.0)
    return (mean / 255).float(), (variance.sqrt() / 255).float()
