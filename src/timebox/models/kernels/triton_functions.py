"""Triton functions that several kernels share."""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Channels that a program computes at once, at most.
CHANNELS = 64


@triton.jit
def largest(at, x_ptr, width, num_channels, inside):
    """The largest of the 2×2 values that begin at a position, and which of them it is: the first of equals, and what is
    not a number wins, as in torch."""
    value = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    place = tl.zeros(value.shape, tl.int8)
    for k in tl.static_range(1, 4):
        step = (k // 2) * width + k % 2
        other = tl.load(x_ptr + at + step * num_channels, mask=inside, other=0.0).to(tl.float32)
        wins = (other > value) | (other != other)
        value = tl.where(wins, other, value)
        place = tl.where(wins, tl.full(value.shape, k, tl.int8), place)
    return value, place


def channel_block_size(num_channels: int) -> int:
    """For each program: a power of two."""
    return min(CHANNELS, 1 << (num_channels - 1).bit_length())


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(N, C, H, W), channels_last, not filled."""
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)
