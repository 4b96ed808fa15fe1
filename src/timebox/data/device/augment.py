"""Augmentation on the device that trains: vectorised over the batch, no Python loop over images.

Every function is pure. Chance comes in as tensors made by :func:`batch_uniform`, a hash of (seed, epoch, image), so
that what happens to an image depends neither on the order of the batches nor on how many devices share the work.

Images are uint8 (N, H, W, C) until :func:`batch_normalize` makes them floating point (N, C, H, W), stored
channels_last, which is the same memory order: no transposition is ever copied.
"""

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
# So many images at once are widened for exact sums of squares: 50 MB of 32x32 RGB.
_CHUNK_IMAGES = 4096


def _mix(x: Tensor) -> Tensor:
    """A 32-bit integer hash with full avalanche (C. Wellons, "Prospecting for hash functions", lowbias32).

    int64 in and out, of which 32 bits are used: torch has no unsigned arithmetic on every device.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def batch_hash(seed: int, stream: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Random 32-bit integers as a function of (seed, stream, epoch, image).

    Args:
        seed: the run's seed, 0 or more.
        stream: which decision the number is for, so that two decisions about one image are independent.
        epochs, indices: int64 (N,), the epoch each image is drawn in and its index in the data set.
    Returns:
        int64 (N,), each in [0, 2**32).
    """
    start = torch.full_like(indices, (seed * 0x9E3779B1 + stream * 0x85EBCA77) & _MASK)
    return _mix(_mix(_mix(start) ^ (epochs & _MASK)) ^ (indices & _MASK))


def batch_uniform(seed: int, stream: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) as a function of (seed, stream, epoch, image): float64 (N,)."""
    return batch_hash(seed, stream, epochs, indices).double() / 2.0**32


def epoch_order(seed: int, epoch: int, num_images: int, device: torch.device) -> Tensor:
    """The order in which one epoch visits the images: int64 (num_images,), made on the device."""
    indices = torch.arange(num_images, device=device)
    return batch_hash(seed, 0, torch.full_like(indices, epoch), indices).argsort(stable=True)


def batch_views(
    images: Tensor,
    indices: Tensor,
    shift_y: Tensor | None = None,
    shift_x: Tensor | None = None,
    flipped: Tensor | None = None,
) -> Tensor:
    """Some images, each seen through a window moved by a few pixels, and then mirrored left to right or not.

    What lies outside the image is its reflection: the same as padding by reflection and cropping. Every pixel is copied
    once, from where it is to where it is seen.

    Args:
        images: (N, H, W, C), any dtype.
        indices: int64 (M,), which images.
        shift_y, shift_x: int64 (M,), the window's offset in pixels, absolute value at most H - 1 and W - 1; None for
            none.
        flipped: bool (M,), which of them are mirrored; None for none.
    Returns:
        (M, H, W, C) of the same dtype.
    """
    if shift_y is None and shift_x is None and flipped is None:
        return images[indices]
    rows, columns = (torch.arange(side, device=images.device)[None] for side in images.shape[1:3])
    if shift_y is not None:
        rows = _reflect(rows + shift_y[:, None], images.shape[1])
    if shift_x is not None:
        columns = _reflect(columns + shift_x[:, None], images.shape[2])
    if flipped is not None:
        columns = torch.where(flipped[:, None], columns.flip(1), columns)
    return images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) folded back at the edge pixel, which is not repeated."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()


def random_flips(seed: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """bool (N,): each image mirrored or not, by chance, anew every epoch."""
    return batch_hash(seed, 1, epochs, indices) & 1 == 1


def alternating_flips(seed: int, epochs: Tensor, indices: Tensor) -> Tensor:
    """bool (N,): each image mirrored in every second epoch; chance decides only in which it starts.

    No image is shown the same way twice running, so that nothing is seen more often than its mirror image
    (K. Jordan, arXiv 2404.00498, section 3.6).
    """
    return (batch_hash(seed, 1, torch.zeros_like(epochs), indices) + epochs) & 1 == 1


def batch_cutout(images: Tensor, centre_y: Tensor, centre_x: Tensor, size: int) -> Tensor:
    """Blank a square of ``size`` pixels around the given centres (DeVries & Taylor, arXiv 1708.04552).

    Args:
        images: normalised floating point (N, C, H, W): zero is the data's mean.
        centre_y, centre_x: int64 (N,). The square is cut off where it leaves the image.
        size: side of the square in pixels, 0 or more.
    """

    def inside(centre: Tensor, length: int) -> Tensor:
        start = centre - size // 2
        offset = torch.arange(length, device=images.device) - start[:, None]
        return (offset >= 0) & (offset < size)

    hole = inside(centre_y, images.shape[2])[:, :, None] & inside(centre_x, images.shape[3])[:, None, :]
    # Filled in memory order: on the (N, C, H, W) view torch would hand back another memory format.
    return images.permute(0, 2, 3, 1).masked_fill(hole[..., None], 0.0).permute(0, 3, 1, 2)


def batch_mixup(images: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """Each image blended with another (Zhang et al., arXiv 1710.09412).

    Args:
        images, others: floating point (N, H, W, C), or targets (N, K).
        share: float32 (N,), 0...1, of the other one; where it is 0 an image stays as it is.
    """
    return torch.lerp(images, others, share.view(-1, *(1 for _ in images.shape[1:])))


def batch_normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 (N, H, W, C) to normalised float32 (N, C, H, W), channels_last.

    Args:
        mean, std: float32 (C,), of the training images with pixels scaled to 0...1.
    """
    scale = 1.0 / (255.0 * std)
    return torch.addcmul(-mean / std, images, scale).permute(0, 3, 1, 2)


def batch_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, computed where the images are, without waiting for the device.

    The same as :func:`timebox.data.channel_statistics`, from exact sums too.

    Args:
        images: uint8 (N, H, W, C).
    Returns:
        Two float32 (C,), of pixels scaled to 0...1.
    """
    sums = torch.zeros(2, images.shape[3], dtype=torch.int64, device=images.device)
    for chunk in images.split(_CHUNK_IMAGES):
        wide = chunk.int()
        sums[0] += wide.sum((0, 1, 2))
        sums[1] += wide.square().sum((0, 1, 2))
    mean, square = sums.double() / images[..., 0].numel()
    variance = (square - mean.square()).clamp_min(0.0)
    return (mean / 255).float(), (variance.sqrt() / 255).float()
