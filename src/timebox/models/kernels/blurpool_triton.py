"""Triton kernels for BlurPool: max pooling with stride 1 and 2×2 average pooling as one operation.

torch needs two operations: maxima at every position, with a 64-bit index each, and their means. These kernels read and
write memory once, and store the four indices of an output in one byte. All tensors are (N, C, H, W) in channels_last,
that is, rows of C channels, one row per position. Arithmetic is float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx

from timebox.models.kernels.triton_functions import channel_block_size, empty_channels_last, max_2x2

# Positions per Triton program.
POSITIONS = 32


@triton.jit
def _coordinates(row, height, width):
    """Image, y and x of a position from its row number in memory."""
    return row // (height * width), (row % (height * width)) // width, row % width


@triton.jit
def _pool(
    x_ptr, output_ptr, indices_ptr, num_rows, num_channels, height, width, down, across,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Forward: mean of the maxima of four overlapping 2×2 windows, leaving out windows that cross the border."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < num_rows)[:, None] & (channels < num_channels)[None, :]
    image, y, x = _coordinates(rows, down, across)
    first = (image * height + 2 * y) * width + 2 * x
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    indices = tl.zeros([ROWS, CHANNELS], tl.int32)
    num_windows = tl.zeros([ROWS], tl.int32)
    for k in tl.static_range(4):
        is_whole = (2 * y + k // 2 + 1 < height) & (2 * x + k % 2 + 1 < width)
        begin = (first + (k // 2) * width + k % 2).to(tl.int64)
        at = begin[:, None] * num_channels + channels[None, :]
        value, index = max_2x2(at, x_ptr, width, num_channels, inside & is_whole[:, None])
        total += tl.where(is_whole[:, None], value, 0.0)
        indices += index.to(tl.int32) << (2 * k)
        num_windows += is_whole.to(tl.int32)
    at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
    mean = total / num_windows.to(tl.float32)[:, None]
    tl.store(output_ptr + at, mean.to(output_ptr.dtype.element_ty), mask=inside)
    tl.store(indices_ptr + at, indices.to(tl.uint8), mask=inside)


@triton.jit
def _gradients(
    grad_ptr, indices_ptr, output_ptr, num_rows, num_channels, height, width, down, across,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Backward: the gradient of a position, summed over the windows in which it is the maximum."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < num_rows)[:, None] & (channels < num_channels)[None, :]
    image, y, x = _coordinates(rows, height, width)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for k in tl.static_range(4):
        # The window in which the position has index k.
        top, left = y - k // 2, x - k % 2
        is_window = (top >= 0) & (left >= 0) & (top + 1 < height) & (left + 1 < width)
        top, left = tl.maximum(top, 0), tl.maximum(left, 0)
        pooled = ((image * down + top // 2) * across + left // 2).to(tl.int64)
        at = pooled[:, None] * num_channels + channels[None, :]
        there = inside & is_window[:, None]
        indices = tl.load(indices_ptr + at, mask=there, other=0).to(tl.int32)
        which = 2 * (2 * (top % 2) + left % 2)
        is_largest = ((indices >> which[:, None]) & 3) == k
        below, right = 2 * (top // 2) + 2 < height, 2 * (left // 2) + 2 < width
        share = tl.where(below, 0.5, 1.0) * tl.where(right, 0.5, 1.0)
        grad = tl.load(grad_ptr + at, mask=there, other=0.0).to(tl.float32)
        total += tl.where(there & is_largest, grad * share[:, None], 0.0)
    at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
    tl.store(output_ptr + at, total.to(output_ptr.dtype.element_ty), mask=inside)


class _MaxBlurPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        num_images, num_channels, height, width = x.shape
        down, across = height // 2, width // 2
        output = empty_channels_last((num_images, num_channels, down, across), x.dtype, x.device)
        indices = torch.empty_like(output, dtype=torch.uint8)
        num_rows = num_images * down * across
        _pool[_grid(num_rows, num_channels)](
            x, output, indices, num_rows, num_channels, height, width, down, across,
            ROWS=POSITIONS, CHANNELS=channel_block_size(num_channels),
        )  # fmt: skip
        ctx.save_for_backward(indices)
        ctx.shape = x.shape
        return output

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (indices,) = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        num_images, num_channels, height, width = ctx.shape
        output = empty_channels_last(ctx.shape, grad.dtype, grad.device)
        num_rows = num_images * height * width
        _gradients[_grid(num_rows, num_channels)](
            grad, indices, output, num_rows, num_channels, height, width, height // 2, width // 2,
            ROWS=POSITIONS, CHANNELS=channel_block_size(num_channels),
        )  # fmt: skip
        return output


def _grid(num_rows: int, num_channels: int) -> tuple[int, int]:
    return triton.cdiv(num_rows, POSITIONS), triton.cdiv(num_channels, channel_block_size(num_channels))


def max_blur_pool(x: Tensor) -> Tensor:
    """MaxBlurPool of x (N, C, H, W), sides of 2 or more, on a GPU; fastest in channels_last, which the output is."""
    output: Tensor = _MaxBlurPool.apply(x)
    return output
