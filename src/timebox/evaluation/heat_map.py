"""Grad-CAM: where in an image a network finds what speaks for a class (R. Selvaraju et al. 2017, arXiv 1610.02391)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models import networks_of
from timebox.models.pretrained import Blend


def heat_map(model: nn.Module, inputs: Tensor, class_index: int) -> Tensor | None:
    """How much each place of an image speaks for a class.

    The last feature maps of the model's networks are weighted by the gradients of the class's score, and added. Each
    value is the part that its place has in the score, by a linear approximation; places that speak against are 0.

    Args:
        model: in evaluation mode.
        inputs: one normalised image (1, C, H, W).
        class_index: of the class.
    Returns:
        float32 (H, W) in 0...1, with a largest value of 1, or all zeros; None for networks without a feature map of
        more than one place, as transformers are.
    """
    branches = _branches(model)
    with torch.enable_grad(), _last_feature_maps(branches) as feature_maps:
        score = model(inputs.detach().requires_grad_())[0, class_index]
        maps = [features for features in feature_maps if features is not None]
        if not maps:
            return None
        gradients = torch.autograd.grad(score, maps, allow_unused=True)
    total = torch.zeros(inputs.shape[2:], device=inputs.device)
    for features, gradient in zip(maps, gradients, strict=True):
        if gradient is not None:
            total += _weighted(features.detach(), gradient, inputs.shape[2:])
    largest = total.max()
    return (total / largest if largest > 0 else total).cpu()


def _branches(model: nn.Module) -> list[nn.Module]:
    """The networks whose scores become one."""
    if isinstance(model, Blend):
        own = [] if model.weights.share == 1 else networks_of(model.network)
        return [*own, model.pretrained]
    return networks_of(model)


@contextmanager
def _last_feature_maps(branches: list[nn.Module]) -> Iterator[list[Tensor | None]]:
    """A list that has, once the model was called in this thread, the last feature map (1, C, h, w) of each network.

    Other threads may call the model too: their outputs reach the hooks, and are not kept.
    """
    found: list[Tensor | None] = [None] * len(branches)
    thread = threading.get_ident()

    def keep(position: int, output: object) -> None:
        if threading.get_ident() != thread:
            return
        if isinstance(output, Tensor) and output.dim() == 4 and output[0, 0].numel() > 1 and output.requires_grad:
            found[position] = output

    hooks = [
        module.register_forward_hook(lambda _, inputs, output, position=position: keep(position, output))
        for position, branch in enumerate(branches)
        for module in branch.modules()
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _weighted(features: Tensor, gradient: Tensor, size: torch.Size) -> Tensor:
    """Feature map (1, C, h, w), its channels weighted by their gradient (1, C, h, w), in the size of the image."""
    weights = gradient.sum((2, 3), keepdim=True)
    places = F.relu((weights * features).sum(1, keepdim=True)) / features[0, 0].numel()
    return F.interpolate(places.float(), size=list(size), mode="bilinear", align_corners=False)[0, 0]
