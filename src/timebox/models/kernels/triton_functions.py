"""Functions that several Triton kernels share."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Largest block of channels of a Triton program.
MAX_BLOCK_CHANNELS = 64


@triton.jit
def max_2x2(at, x_ptr, width, num_channels, inside):
    """Maximum of a 2×2 window and its index in the window, 0...3.

    As in torch's max pooling, the first of equal values wins, and NaN wins over all.

    Args:
        at: offsets of the first value of each window.
    """
    value = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    index = tl.zeros(value.shape, tl.int8)
    for k in tl.static_range(1, 4):
        step = (k // 2) * width + k % 2
        other = tl.load(x_ptr + at + step * num_channels, mask=inside, other=0.0).to(tl.float32)
        wins = (other > value) | (other != other)
        value = tl.where(wins, other, value)
        index = tl.where(wins, tl.full(value.shape, k, tl.int8), index)
    return value, index


def channel_block_size(num_channels: int) -> int:
    """Channels that a Triton program computes at once, a power of two."""
    return min(MAX_BLOCK_CHANNELS, 1 << (num_channels - 1).bit_length())


def empty_channels_last(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor (N, C, H, W) in channels_last."""
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
