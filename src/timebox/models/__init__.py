"""Networks: ResNet-9, ResNet-18, Airbench and ensembles of them, built from plain arguments.

Each network is a file, its layers are in ``layers``, and Triton kernels for GPUs are in ``kernels``. Networks know
nothing of recipes: ``timebox.builders`` constructs them from one.
"""

import torch
from torch import Tensor, nn

from timebox.models.airbench import Airbench, AirbenchConfig
from timebox.models.ensemble import Ensemble, networks_of
from timebox.models.kernels.dispatch import kernels_work
from timebox.models.layers import GhostBatchNorm, Whitening, start_at_identity
from timebox.models.resnet9 import ResNet9, ResNet9Config
from timebox.models.resnet18 import ResNet18

__all__ = [
    "Airbench",
    "AirbenchConfig",
    "Ensemble",
    "GhostBatchNorm",
    "ResNet9",
    "ResNet9Config",
    "ResNet18",
    "Whitening",
    "count_flops",
    "fit_whitening",
    "kernels_work",
    "networks_of",
    "start_at_identity",
]


def fit_whitening(model: nn.Module, images: Tensor) -> None:
    """Fit the filters of every whitening layer to normalised training images (N, C, H, W)."""
    whitenings = [module for module in model.modules() if isinstance(module, Whitening)]
    if not whitenings:
        return
    first = networks_of(model)[0]
    whitenings[0].fit(first.resize_inputs(images) if isinstance(first, Airbench) else images)
    # All networks of an ensemble have equal whitening layers: fit one, and copy it.
    for module in whitenings[1:]:
        module.weight.copy_(whitenings[0].weight)


def count_flops(model: nn.Module, image_shape: tuple[int, int, int]) -> float:
    """Floating-point operations of one training step per image of ``image_shape`` (C, H, W).

    A multiply-add of a convolution or linear layer counts as two operations, and the backward pass as twice the forward
    pass; other operations count as nothing. At least 1. On the ``meta`` device no values are computed.
    """
    total = 0.0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        # Of an image: pixels of (N, C, H, W), tokens of (N, T, C).
        positions = output[0, 0].numel() if output.dim() == 4 else output[0, ..., 0].numel()
        total += 2 * 3 * weight.numel() * positions

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | Whitening)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()(torch.zeros((1, *image_shape), device=device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return max(total, 1.0)
