"""Triton kernels for max pooling, batch norm and GELU as one operation.

As separate operations after a convolution they take longer than the convolution itself on a fast GPU: each reads and
writes the whole activation, and torch's max pooling stores a 64-bit index for each value. These kernels read the
activation as often as batch norm must: forward once for the statistics, with the pooling, and once to normalise;
backward likewise. On an H100 that saves a third of a step of ``airbench94`` (LOG.md).

Statistics and arithmetic are float32 for all dtypes of the activation. All tensors are (N, C, H, W) in channels_last,
that is, rows of C channels, one row per position. Sums over rows are computed in two kernels: partial sums, one per
Triton program, and their combination.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import FunctionCtx

from timebox.models.kernels.triton_functions import channel_block_size, empty_channels_last, max_2x2

# Positions per Triton program, without and with pooling.
POSITIONS, POSITIONS_POOLED = 64, 32
# Largest number of programs that compute partial sums.
MAX_PROGRAMS = 1024
# Partial sums and channels that one program combines at a time.
COMBINED_PROGRAMS, COMBINED_CHANNELS = 512, 16


@triton.jit
def _window(row, height, width, down, across):
    """Row of the first position of a 2×2 window, and the window's y and x, from the number of the window."""
    image = row // (down * across)
    y = (row % (down * across)) // across
    x = row % across
    return (image * height + 2 * y) * width + 2 * x, y, x


@triton.jit
def _partial_statistics(
    x_ptr, pooled_ptr, index_ptr, count_ptr, mean_ptr, square_ptr, num_rows, num_channels, height, width, down, across,
    POOLED: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Count, mean and sum of squared deviations of the values of each program, pooled before if POOLED."""
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    count = 0.0
    mean = tl.zeros([CHANNELS], tl.float32)
    square = tl.zeros([CHANNELS], tl.float32)
    for start in range(program * ROWS, num_rows, num_programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None] & is_channel[None, :]
        if POOLED:
            first, _, _ = _window(rows, height, width, down, across)
            at = first.to(tl.int64)[:, None] * num_channels + channels[None, :]
            value, index = max_2x2(at, x_ptr, width, num_channels, inside)
            to = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
            tl.store(pooled_ptr + to, value.to(pooled_ptr.dtype.element_ty), mask=inside)
            tl.store(index_ptr + to, index, mask=inside)
        else:
            at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
            value = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        num = tl.minimum(num_rows - start, ROWS).to(tl.float32)
        own_mean = tl.sum(value, 0) / num
        apart = tl.where(inside, value - own_mean[None, :], 0.0)
        shift = own_mean - mean
        square += tl.sum(apart * apart, 0) + shift * shift * (count * num / (count + num))
        mean += shift * (num / (count + num))
        count += num
    at = program * num_channels + channels
    tl.store(count_ptr + program, count)
    tl.store(mean_ptr + at, mean, mask=is_channel)
    tl.store(square_ptr + at, square, mask=is_channel)


@triton.jit
def _combine_statistics(
    count_ptr, mean_ptr, square_ptr, moments_ptr, running_mean_ptr, running_var_ptr, num_rows, num_channels,
    num_programs, momentum, epsilon, PROGRAMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean and inverse standard deviation of all values from the partial ones; updates the running statistics."""
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    mean = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, num_programs, PROGRAMS):
        programs = start + tl.arange(0, PROGRAMS)
        inside = (programs < num_programs)[:, None] & is_channel[None, :]
        count = tl.load(count_ptr + programs, mask=programs < num_programs, other=0.0)
        own = tl.load(mean_ptr + programs[:, None] * num_channels + channels[None, :], mask=inside, other=0.0)
        mean += tl.sum(own * count[:, None], 0)
    mean = mean / num_rows
    square = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, num_programs, PROGRAMS):
        programs = start + tl.arange(0, PROGRAMS)
        inside = (programs < num_programs)[:, None] & is_channel[None, :]
        count = tl.load(count_ptr + programs, mask=programs < num_programs, other=0.0)
        at = programs[:, None] * num_channels + channels[None, :]
        apart = tl.load(mean_ptr + at, mask=inside, other=0.0) - mean[None, :]
        square += tl.sum(tl.load(square_ptr + at, mask=inside, other=0.0) + apart * apart * count[:, None], 0)
    tl.store(moments_ptr + channels, mean, mask=is_channel)
    tl.store(moments_ptr + num_channels + channels, tl.rsqrt(square / num_rows + epsilon), mask=is_channel)
    running = tl.load(running_mean_ptr + channels, mask=is_channel, other=0.0)
    tl.store(running_mean_ptr + channels, running + momentum * (mean - running), mask=is_channel)
    running = tl.load(running_var_ptr + channels, mask=is_channel, other=0.0)
    variance = square / (num_rows - 1)
    tl.store(running_var_ptr + channels, running + momentum * (variance - running), mask=is_channel)


@triton.jit
def _normalized(value, moments_ptr, bias_ptr, channels, num_channels):
    """Normalised values, normalised values plus bias, and the inverse standard deviation."""
    is_channel = channels < num_channels
    mean = tl.load(moments_ptr + channels, mask=is_channel, other=0.0)
    scale = tl.load(moments_ptr + num_channels + channels, mask=is_channel, other=0.0)
    bias = tl.load(bias_ptr + channels, mask=is_channel, other=0.0)
    normal = (value.to(tl.float32) - mean[None, :]) * scale[None, :]
    return normal, normal + bias[None, :], scale


@triton.jit
def _normal_distribution(x):
    """Cumulative distribution function of the normal distribution (error at most 7.5e-8), and its density.

    Both need a single exponential. With CUDA's erf the kernels would be bound by arithmetic instead of memory.

    Source: M. Abramowitz & I. Stegun, Handbook of Mathematical Functions, 26.2.17.
    """
    density = 0.3989422804014327 * tl.exp(-0.5 * x * x)
    t = 1.0 / (1.0 + 0.2316419 * tl.abs(x))
    above = 1.781477937 + t * (-1.821255978 + t * 1.330274429)
    above = density * t * (0.319381530 + t * (-0.356563782 + t * above))
    return tl.where(x < 0.0, above, 1.0 - above), density


@triton.jit
def _normalize_gelu(
    value_ptr, output_ptr, moments_ptr, bias_ptr, num_rows, num_channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (rows < num_rows)[:, None] & (channels < num_channels)[None, :]
    at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
    value = tl.load(value_ptr + at, mask=inside, other=0.0)
    _, shifted, _ = _normalized(value, moments_ptr, bias_ptr, channels, num_channels)
    share, _ = _normal_distribution(shifted)
    tl.store(output_ptr + at, (shifted * share).to(output_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gelu_backward(grad, shifted):
    """Gradient of the input of GELU from that of its output."""
    share, density = _normal_distribution(shifted)
    return grad.to(tl.float32) * (share + shifted * density)


@triton.jit
def _partial_gradient_sums(
    grad_ptr, value_ptr, moments_ptr, bias_ptr, sum_ptr, product_ptr, num_rows, num_channels,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums of the gradients of GELU's input and of their products with the normalised values, per program."""
    program, num_programs = tl.program_id(0), tl.num_programs(0)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    total = tl.zeros([CHANNELS], tl.float32)
    product = tl.zeros([CHANNELS], tl.float32)
    for start in range(program * ROWS, num_rows, num_programs * ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < num_rows)[:, None] & is_channel[None, :]
        at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
        value = tl.load(value_ptr + at, mask=inside, other=0.0)
        normal, shifted, _ = _normalized(value, moments_ptr, bias_ptr, channels, num_channels)
        # Masked rows have a gradient of zero, and add nothing.
        grad = _gelu_backward(tl.load(grad_ptr + at, mask=inside, other=0.0), shifted)
        total += tl.sum(grad, 0)
        product += tl.sum(grad * normal, 0)
    at = program * num_channels + channels
    tl.store(sum_ptr + at, total, mask=is_channel)
    tl.store(product_ptr + at, product, mask=is_channel)


@triton.jit
def _combine_sums(
    sum_ptr, product_ptr, totals_ptr, num_channels, num_programs, PROGRAMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    total = tl.zeros([CHANNELS], tl.float32)
    product = tl.zeros([CHANNELS], tl.float32)
    for start in range(0, num_programs, PROGRAMS):
        programs = start + tl.arange(0, PROGRAMS)
        inside = (programs < num_programs)[:, None] & is_channel[None, :]
        at = programs[:, None] * num_channels + channels[None, :]
        total += tl.sum(tl.load(sum_ptr + at, mask=inside, other=0.0), 0)
        product += tl.sum(tl.load(product_ptr + at, mask=inside, other=0.0), 0)
    tl.store(totals_ptr + channels, total, mask=is_channel)
    tl.store(totals_ptr + num_channels + channels, product, mask=is_channel)


@triton.jit
def _gradients(
    grad_ptr, value_ptr, index_ptr, moments_ptr, bias_ptr, totals_ptr, output_ptr, num_windows, num_rows, num_channels,
    height, width, down, across, POOLED: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of the input; if POOLED, at the maximum of each window, and zero elsewhere."""
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    is_channel = channels < num_channels
    windows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_window = windows < num_windows
    if POOLED:
        # Windows that cross the border were not pooled: their gradients are zero.
        first, y, x = _window(windows, height, width, (height + 1) // 2, (width + 1) // 2)
        image = windows // (((height + 1) // 2) * ((width + 1) // 2))
        rows = (image * down + y) * across + x
        is_row = is_window & (y < down) & (x < across)
    else:
        rows = windows
        is_row = is_window
    inside = is_row[:, None] & is_channel[None, :]
    at = rows.to(tl.int64)[:, None] * num_channels + channels[None, :]
    value = tl.load(value_ptr + at, mask=inside, other=0.0)
    normal, shifted, scale = _normalized(value, moments_ptr, bias_ptr, channels, num_channels)
    grad = _gelu_backward(tl.load(grad_ptr + at, mask=inside, other=0.0), shifted)
    total = tl.load(totals_ptr + channels, mask=is_channel, other=0.0) / num_rows
    product = tl.load(totals_ptr + num_channels + channels, mask=is_channel, other=0.0) / num_rows
    grad = (scale[None, :] * (grad - total[None, :] - normal * product[None, :])).to(output_ptr.dtype.element_ty)
    if POOLED:
        index = tl.load(index_ptr + at, mask=inside, other=4)
        to = first.to(tl.int64)[:, None] * num_channels + channels[None, :]
        for k in tl.static_range(4):
            there = is_window & (2 * y + k // 2 < height) & (2 * x + k % 2 < width)
            step = (k // 2) * width + k % 2
            own = tl.where(index == k, grad, tl.zeros_like(grad))
            tl.store(output_ptr + to + step * num_channels, own, mask=there[:, None] & is_channel[None, :])
    else:
        tl.store(output_ptr + at, grad, mask=inside)


@dataclass(frozen=True, eq=False)
class BatchNormBuffers:
    """Running statistics, float32 (C,), momentum and epsilon of a batch norm layer, as of ``nn.BatchNorm2d``."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    epsilon: float


class _PoolNormGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bias: Tensor, buffers: BatchNormBuffers, pooled: bool) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        num_images, num_channels, height, width = x.shape
        down, across = (height // 2, width // 2) if pooled else (height, width)
        num_rows = num_images * down * across
        shape = (num_images, num_channels, down, across)
        value, index = x, x
        if pooled:
            value = empty_channels_last(shape, x.dtype, x.device)
            index = empty_channels_last(shape, torch.int8, x.device)
        rows, channels = (POSITIONS_POOLED if pooled else POSITIONS), channel_block_size(num_channels)
        blocks = triton.cdiv(num_channels, channels)
        num_programs = _num_programs(num_rows, rows, blocks)
        count = x.new_empty(num_programs, dtype=torch.float32)
        mean, square = x.new_empty((2, num_programs, num_channels), dtype=torch.float32)
        moments = x.new_empty((2, num_channels), dtype=torch.float32)
        _partial_statistics[(num_programs, blocks)](
            x, value, index, count, mean, square, num_rows, num_channels, height, width, down, across,
            POOLED=pooled, ROWS=rows, CHANNELS=channels,
        )  # fmt: skip
        _combine_statistics[(triton.cdiv(num_channels, COMBINED_CHANNELS),)](
            count, mean, square, moments, buffers.running_mean, buffers.running_var, num_rows, num_channels,
            num_programs, buffers.momentum, buffers.epsilon,
            PROGRAMS=COMBINED_PROGRAMS, CHANNELS=COMBINED_CHANNELS,
        )  # fmt: skip
        output = _normalize_and_gelu(value, moments, bias)
        ctx.save_for_backward(value, index, moments, bias)
        ctx.shape, ctx.pooled = x.shape, pooled
        return output

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, index, moments, bias = ctx.saved_tensors
        pooled: bool = ctx.pooled
        num_images, num_channels, height, width = ctx.shape
        grad = grad.contiguous(memory_format=torch.channels_last)
        totals = _gradient_sums(grad, value, moments, bias)
        down, across = value.shape[2:]
        num_rows = num_images * down * across
        channels = channel_block_size(num_channels)
        blocks = triton.cdiv(num_channels, channels)
        output = empty_channels_last(ctx.shape, value.dtype, value.device)
        rows = POSITIONS_POOLED if pooled else POSITIONS
        num_windows = num_images * ((height + 1) // 2) * ((width + 1) // 2) if pooled else num_rows
        _gradients[(triton.cdiv(num_windows, rows), blocks)](
            grad, value, index, moments, bias, totals, output, num_windows, num_rows, num_channels, height, width,
            down, across, POOLED=pooled, ROWS=rows, CHANNELS=channels,
        )  # fmt: skip
        return output, totals[0], None, None


class _BiasGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        moments = torch.zeros((2, x.shape[1]), device=x.device)
        moments[1] = 1.0
        ctx.save_for_backward(x, moments, bias)
        return _normalize_and_gelu(x, moments, bias)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[None, Tensor]:
        x, moments, bias = ctx.saved_tensors
        return None, _gradient_sums(grad.contiguous(memory_format=torch.channels_last), x, moments, bias)[0]


def _normalize_and_gelu(value: Tensor, moments: Tensor, bias: Tensor) -> Tensor:
    """GELU of the normalised values plus bias."""
    num_channels = value.shape[1]
    num_rows, channels = value.numel() // num_channels, channel_block_size(num_channels)
    output = torch.empty_like(value)
    _normalize_gelu[(triton.cdiv(num_rows, POSITIONS), triton.cdiv(num_channels, channels))](
        value, output, moments, bias, num_rows, num_channels, ROWS=POSITIONS, CHANNELS=channels
    )
    return output


def _gradient_sums(grad: Tensor, value: Tensor, moments: Tensor, bias: Tensor) -> Tensor:
    """Sums of the gradients of GELU's input and of their products with the normalised values: float32 (2, C)."""
    num_channels = value.shape[1]
    num_rows, channels = value.numel() // num_channels, channel_block_size(num_channels)
    blocks = triton.cdiv(num_channels, channels)
    num_programs = _num_programs(num_rows, POSITIONS, blocks)
    total, product = value.new_empty((2, num_programs, num_channels), dtype=torch.float32)
    totals = value.new_empty((2, num_channels), dtype=torch.float32)
    _partial_gradient_sums[(num_programs, blocks)](
        grad, value, moments, bias, total, product, num_rows, num_channels, ROWS=POSITIONS, CHANNELS=channels
    )
    _combine_sums[(triton.cdiv(num_channels, COMBINED_CHANNELS),)](
        total, product, totals, num_channels, num_programs, PROGRAMS=COMBINED_PROGRAMS, CHANNELS=COMBINED_CHANNELS
    )
    return totals


def _num_programs(num_rows: int, rows: int, blocks: int) -> int:
    """Number of programs over the rows, for each block of channels."""
    return min(max(1, MAX_PROGRAMS // blocks), -(-num_rows // rows))


def pool_norm_gelu(x: Tensor, bias: Tensor, buffers: BatchNormBuffers, *, pooled: bool) -> Tensor:
    """2×2 max pooling if ``pooled``, batch norm in training mode without a weight, exact GELU.

    Args:
        x: (N, C, H, W), float32, bfloat16 or float16, on a GPU; fastest in channels_last.
        bias: float32 (C,).
        buffers: running statistics, updated in place.
        pooled: whether 2×2 max pooling comes first; a last odd row or column is left out.
    Returns:
        (N, C, H, W) or (N, C, H // 2, W // 2) of x's dtype, channels_last.
    """
    output: Tensor = _PoolNormGelu.apply(x, bias, buffers, pooled)
    return output


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Exact GELU of ``x + bias`` as for :func:`pool_norm_gelu`, with a gradient for the bias only."""
    output: Tensor = _BiasGelu.apply(x, bias)
    return output
