"""Dispatch between Triton kernels and torch: pooling, batch norm and GELU as one operation, and BlurPool.

Kernels are used only if they compile on the device and agree with torch's own operations there.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.models.layers import GhostBatchNorm, MaxBlurPool

# Relative difference allowed between kernels and torch: the rounding of float32 sums, and twice that of the dtype.
SUM_TOLERANCE = 1e-5
POOL_NORM_GELU_MODULE = "timebox.models.kernels.pool_norm_gelu_triton"
BLURPOOL_MODULE = "timebox.models.kernels.blurpool_triton"


def can_fuse(x: Tensor, norm: GhostBatchNorm) -> bool:
    """Whether pool_norm_gelu can replace the layers: in training, with whole-batch statistics, where kernels work."""
    return x.is_cuda and norm.training and norm.num_groups(len(x)) == 1 and kernels_work(x.device, x.dtype)


def pool_norm_gelu(x: Tensor, norm: GhostBatchNorm, pooled: bool) -> Tensor:
    """``gelu(norm(max_pool2d(x, 2)))`` in training where :func:`can_fuse`, without pooling if ``pooled`` is False."""
    kernels = _import_kernels(POOL_NORM_GELU_MODULE)
    assert kernels is not None and norm.running_mean is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    buffers = kernels.BatchNormBuffers(norm.running_mean, norm.running_var, norm.momentum, norm.eps)
    output: Tensor = kernels.pool_norm_gelu(x, norm.bias, buffers, pooled=pooled)
    return output


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x + bias)`` where :func:`kernels_work`, for x (N, C, H, W), with a gradient for the bias (C,) only."""
    kernels = _import_kernels(POOL_NORM_GELU_MODULE)
    assert kernels is not None
    output: Tensor = kernels.bias_gelu(x, bias)
    return output


def max_blur_pool(x: Tensor) -> Tensor:
    """:class:`MaxBlurPool` of ``x`` (N, C, H, W) on a GPU, by the kernels if they work there."""
    if not blurpool_kernels_work(x.device, x.dtype):
        return MaxBlurPool()(x)  # type: ignore[no-any-return]
    kernels = _import_kernels(BLURPOOL_MODULE)
    assert kernels is not None
    output: Tensor = kernels.max_blur_pool(x)
    return output


@cache
def _import_kernels(module: str) -> ModuleType | None:
    """A module of kernels; None without Triton, which is part of torch for CUDA on Linux."""
    try:
        return import_module(module)
    except ImportError:
        return None


@cache
def kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels for pooling, batch norm and GELU compile on this device and agree with torch.

    The first use on a machine compiles them, among others with a C compiler, which takes some seconds.
    """

    def matches_torch(kernels: ModuleType) -> bool:
        return all(_pool_norm_gelu_matches_torch(kernels, device, dtype, pooled) for pooled in (True, False, None))

    return _check_kernels(POOL_NORM_GELU_MODULE, matches_torch)


@cache
def blurpool_kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the BlurPool kernels compile on this device and agree with torch."""
    return _check_kernels(BLURPOOL_MODULE, lambda kernels: _blurpool_matches_torch(kernels, device, dtype))


def _check_kernels(module: str, matches_torch: Callable[[ModuleType], bool]) -> bool:
    kernels = _import_kernels(module)
    try:
        return kernels is not None and matches_torch(kernels)
    except Exception:  # compilers and drivers raise exceptions of many types
        return False


def _blurpool_matches_torch(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> bool:
    """Compare outputs and gradients on random numbers."""
    generator = torch.Generator(device).manual_seed(0)
    numbers = torch.randn((16, 24, 9, 8), generator=generator, device=device).to(dtype)
    results = []
    with torch.enable_grad():
        for use_kernels in (False, True):
            x = (numbers if use_kernels else numbers.float()).clone().requires_grad_()
            output = kernels.max_blur_pool(x) if use_kernels else MaxBlurPool()(x)
            output.float().square().sum().backward()
            assert x.grad is not None
            results.append([t.double() for t in (output.detach(), x.grad)])
    return _are_close(results[0], results[1], dtype)


def _pool_norm_gelu_matches_torch(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, pooled: bool | None
) -> bool:
    """Compare outputs, gradients and running statistics on random numbers; ``pooled`` None compares bias_gelu."""
    generator = torch.Generator(device).manual_seed(0)
    draws = [torch.randn(shape, generator=generator, device=device) for shape in ((16, 24, 9, 7), (24,))]
    results = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for use_kernels in (False, True):
            mean, var = torch.zeros(24, device=device), torch.ones(24, device=device)
            x, bias = (t.clone().requires_grad_() for t in (draws[0].to(dtype), draws[1]))
            if pooled is None:
                output = kernels.bias_gelu(x.detach(), bias) if use_kernels else F.gelu(x.float() + bias[:, None, None])
            elif use_kernels:
                output = kernels.pool_norm_gelu(x, bias, kernels.BatchNormBuffers(mean, var, 0.4, 1e-5), pooled=pooled)
            else:
                value = F.max_pool2d(x.float(), 2) if pooled else x.float()
                ones = torch.ones_like(bias)  # without a weight the backward pass of batch_norm fails on a GPU
                output = F.gelu(F.batch_norm(value, mean, var, ones, bias, True, 0.4, 1e-5))
            output.float().square().sum().backward()
            grads = [bias.grad] if pooled is None else [bias.grad, x.grad]
            results.append([t.double() for t in (output.detach(), *grads, mean, var) if t is not None])
    return _are_close(results[0], results[1], dtype)


def _are_close(expected: Sequence[Tensor], actual: Sequence[Tensor], dtype: torch.dtype) -> bool:
    tolerance = SUM_TOLERANCE + 2 * torch.finfo(dtype).eps
    return all(bool((a - b).norm() <= tolerance * a.norm()) for a, b in zip(expected, actual, strict=True))
