"""Whether pooling, normalisation and activation can be one operation here, and how that is called."""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.models.layers import GhostBatchNorm, MaxBlurPool

# How far the kernels may be from torch's own operations, as a share: the rounding of sums, and twice the format's.
SUMS_ROUNDING = 1e-5
FUSED, BLURRING = "timebox.models.kernels.pool_norm_gelu_triton", "timebox.models.kernels.blurpool_triton"


def can_fuse(x: Tensor, norm: GhostBatchNorm) -> bool:
    """Whether :func:`pool_norm_gelu` can take the place of pooling, ``norm`` and GELU: in training, on a GPU, over the
    whole batch, where the kernels do what they should."""
    return x.is_cuda and norm.training and norm.num_groups(len(x)) == 1 and kernels_work(x.device, x.dtype)


def pool_norm_gelu(x: Tensor, norm: GhostBatchNorm, pooled: bool) -> Tensor:
    """``gelu(norm(max_pool2d(x, 2)))``, or without the pooling, in training.

    Args:
        x: (N, C, H, W) on a GPU.
    """
    kernels = _kernels(FUSED)
    assert kernels is not None and norm.running_mean is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    output: Tensor = kernels.pool_norm_gelu(
        x, norm.bias, norm.running_mean, norm.running_var, momentum=norm.momentum, epsilon=norm.eps, pooled=pooled
    )
    return output


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """``gelu(x + bias)``, through which the bias alone can be learnt.

    Args:
        x: (N, C, H, W) on a GPU where :func:`kernels_work`.
        bias: float32 (C,).
    """
    kernels = _kernels(FUSED)
    assert kernels is not None
    output: Tensor = kernels.bias_gelu(x, bias)
    return output


def max_blur_pool(x: Tensor) -> Tensor:
    """What :class:`MaxBlurPool` makes of ``x``, (N, C, H, W) on a GPU, by kernels where they do what they should."""
    if not blurpool_kernels_work(x.device, x.dtype):
        return MaxBlurPool()(x)  # type: ignore[no-any-return]
    kernels = _kernels(BLURRING)
    assert kernels is not None
    output: Tensor = kernels.max_blur_pool(x)
    return output


@cache
def _kernels(module: str) -> ModuleType | None:
    """A module of kernels; None where Triton, which comes with torch for CUDA on Linux, is missing."""
    try:
        return import_module(module)
    except ImportError:
        return None


@cache
def kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels can be had on this device, and come to what torch's own operations come to.

    They are compiled when they are first used, by a C compiler among others, which takes some seconds the first time on
    a machine; whatever is missing there, training goes on without them.
    """
    return _works(
        FUSED,
        lambda kernels: all(_pool_norm_gelu_matches_torch(kernels, device, dtype, how) for how in (True, False, None)),
    )


@cache
def blurpool_kernels_work(device: torch.device, dtype: torch.dtype) -> bool:
    """As :func:`kernels_work`, of blurred pooling."""
    return _works(BLURRING, lambda kernels: _blurpool_matches_torch(kernels, device, dtype))


def _works(module: str, agrees: Callable[[ModuleType], bool]) -> bool:
    kernels = _kernels(module)
    try:
        return kernels is not None and agrees(kernels)
    except Exception:  # of a compiler, a driver, a language: nobody can list them
        return False


def _blurpool_matches_torch(kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> bool:
    """On random numbers, forward and backward."""
    generator = torch.Generator(device).manual_seed(0)
    numbers = torch.randn((16, 24, 9, 8), generator=generator, device=device).to(dtype)
    results = []
    with torch.enable_grad():
        for fused in (False, True):
            x = (numbers if fused else numbers.float()).clone().requires_grad_()
            output = kernels.max_blur_pool(x) if fused else MaxBlurPool()(x)
            output.float().square().sum().backward()
            assert x.grad is not None
            results.append([t.double() for t in (output.detach(), x.grad)])
    return _alike(results[0], results[1], dtype)


def _pool_norm_gelu_matches_torch(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, pooled: bool | None
) -> bool:
    """On random numbers, forward and backward.

    Args:
        pooled: of :func:`pool_norm_gelu`; None for :func:`bias_gelu`.
    """
    generator = torch.Generator(device).manual_seed(0)
    draws = [torch.randn(shape, generator=generator, device=device) for shape in ((16, 24, 9, 7), (24,))]
    results = []
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        for fused in (False, True):
            mean, var = torch.zeros(24, device=device), torch.ones(24, device=device)
            x, bias = (t.clone().requires_grad_() for t in (draws[0].to(dtype), draws[1]))
            if pooled is None:
                output = kernels.bias_gelu(x.detach(), bias) if fused else F.gelu(x.float() + bias[:, None, None])
            elif fused:
                output = kernels.pool_norm_gelu(x, bias, mean, var, momentum=0.4, epsilon=1e-5, pooled=pooled)
            else:
                value = F.max_pool2d(x.float(), 2) if pooled else x.float()
                ones = torch.ones_like(bias)  # without a scale torch's own fails in its backward pass on a GPU
                output = F.gelu(F.batch_norm(value, mean, var, ones, bias, True, 0.4, 1e-5))
            output.float().square().sum().backward()
            grads = [bias.grad] if pooled is None else [bias.grad, x.grad]
            results.append([t.double() for t in (output.detach(), *grads, mean, var) if t is not None])
    return _alike(results[0], results[1], dtype)


def _alike(expected: Sequence[Tensor], found: Sequence[Tensor], dtype: torch.dtype) -> bool:
    tolerance = SUMS_ROUNDING + 2 * torch.finfo(dtype).eps
    return all(bool((a - b).norm() <= tolerance * a.norm()) for a, b in zip(expected, found, strict=True))
