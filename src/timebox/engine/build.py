"""From a recipe to a network on a device."""

import torch
from torch import nn

from timebox.errors import UsageError
from timebox.models import ResNet9, ResNet18
from timebox.recipe import Recipe


def build_model(recipe: Recipe, in_channels: int, num_classes: int) -> nn.Module:
    """The recipe's network with fresh weights, float32, channels_last, on the CPU."""
    model: nn.Module
    if recipe.model == "resnet18":
        model = ResNet18(in_channels, num_classes, width=recipe.width)
    else:
        model = ResNet9(
            in_channels,
            num_classes,
            width=recipe.width,
            whitening=recipe.whitening,
            ghost_size=recipe.ghost_size,
            celu_alpha=recipe.celu_alpha,
            logit_scale=recipe.logit_scale,
        )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def resolve_device(device: str) -> torch.device:
    """``auto`` takes a CUDA device where there is one, else the CPU. Raises UsageError for one that is not here."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device!r} is unknown; use auto, cpu or cuda")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UsageError("device 'cuda' is not available: torch finds no CUDA GPU here; use --device cpu or auto")
    return torch.device("cuda" if device != "cpu" and available else "cpu")
