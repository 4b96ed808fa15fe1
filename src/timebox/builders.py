"""Network, optimizer, augmentation and resizing of a recipe."""

import torch
from torch import Tensor, nn

from timebox.data.device.augment import batch_normalize
from timebox.data.device.loader import Augmentation
from timebox.data.device.resize import MIN_SIDE, Resizing
from timebox.errors import UsageError
from timebox.machine import check_memory
from timebox.models import (
    Airbench,
    AirbenchConfig,
    Ensemble,
    ResNet9,
    ResNet9Config,
    ResNet18,
    Whitening,
    fit_whitening,
    start_at_identity,
)
from timebox.models.airbench import MIN_SIDE as AIRBENCH_MIN_SIDE
from timebox.optim import Optimizer, ParameterGroup, muon_group, sgd_group
from timebox.recipe import Recipe

# Pixels whose patches determine the whitening filters: a million patches give a few dozen variances, in 100 MB.
NUM_WHITENING_PIXELS = 2**20
# Lower bound for the standard deviation of a channel, which is 0 in a constant one.
MIN_STD = 1 / 255
# Bytes of a weight in training: itself, its gradient, momentum and average, in float32.
_TRAINING_BYTES, _UNCHECKED_WEIGHTS = 16, 1 << 24


def build_model(recipe: Recipe, in_channels: int, num_classes: int) -> nn.Module:
    """The recipe's network, or its ensemble, with random weights, float32, channels_last, on the CPU.

    Raises UsageError where its weights, gradients and averages do not fit into memory.
    """
    if torch.get_default_device().type != "meta":
        with torch.device("meta"):
            network = _build_network(recipe, in_channels, num_classes)
        num_weights = recipe.ensemble_size * sum(weight.numel() for weight in network.parameters())
        if num_weights > _UNCHECKED_WEIGHTS:
            where, purpose = f"recipe {recipe.name!r}", f"training a network of {num_weights:,} weights"
            check_memory(num_weights * _TRAINING_BYTES, where, purpose, UsageError)
    networks = [_build_network(recipe, in_channels, num_classes) for _ in range(recipe.ensemble_size)]
    model = networks[0] if recipe.ensemble_size == 1 else Ensemble(networks)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _build_network(recipe: Recipe, in_channels: int, num_classes: int) -> nn.Module:
    model: nn.Module
    width, ghost_size, logit_scale = recipe.width, recipe.ghost_size, recipe.logit_scale
    if recipe.model == "resnet18":
        model = ResNet18(in_channels, num_classes, width=width)
    elif recipe.model == "airbench":
        airbench = AirbenchConfig(
            width, ghost_size, logit_scale, recipe.input_scale, recipe.blur_pool, recipe.norm_epsilon
        )
        model = Airbench(in_channels, num_classes, airbench)
    else:
        resnet9 = ResNet9Config(width, recipe.whitening, ghost_size, recipe.celu_alpha, logit_scale)
        model = ResNet9(in_channels, num_classes, resnet9)
    if recipe.identity_init:
        start_at_identity(model)
    return model


def build_optimizer(model: nn.Module, recipe: Recipe, low_precision: torch.dtype) -> Optimizer:
    """The recipe's optimizer for a network, with zero momentum; Muon's iterations run in ``low_precision``.

    Weights have the learning rate itself, biases a multiple of it; convolution filters are under Muon where the recipe
    says so. The bias of a whitening layer freezes early.
    """
    whitening_biases = [m.bias for m in model.modules() if isinstance(m, Whitening) and m.bias is not None]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is bias for bias in whitening_biases)]
    filters = [p for p in others if p.dim() == 4] if recipe.optimizer == "muon" else []
    weights: list[Tensor] = [p for p in others if p.dim() > 1 and not (filters and p.dim() == 4)]
    decay, bias_multiplier = recipe.weight_decay, recipe.bias_lr_multiplier
    groups: list[ParameterGroup] = [
        sgd_group(weights, decay),
        sgd_group([p for p in others if p.dim() == 1], decay, bias_multiplier),
        sgd_group(list(whitening_biases), decay, bias_multiplier, recipe.whitening_bias_until),
        muon_group(list(filters), recipe.filter_lr / recipe.max_lr, recipe.filter_momentum, low_precision),
    ]
    return Optimizer([group for group in groups if group.parameters], recipe.max_lr, recipe.max_momentum)


def build_augmentation(recipe: Recipe) -> Augmentation:
    """The recipe's augmentation of training images."""
    return Augmentation(recipe.crop_padding, recipe.flip, recipe.cutout_size, recipe.mixup, recipe.mixup_until)


def build_resizing(recipe: Recipe) -> Resizing:
    """The size of the training images that the recipe's network takes, by progress."""
    min_side = AIRBENCH_MIN_SIDE if recipe.model == "airbench" else MIN_SIDE
    return Resizing(recipe.start_size, recipe.full_size_at, recipe.input_scale, min_side)


def init_whitening_(model: nn.Module, recipe: Recipe, images: Tensor, mean: Tensor, std: Tensor) -> None:
    """Fit the filters of whitening layers to the training images, if the recipe has whitening.

    Args:
        images: uint8 (N, H, W, C), on any device; an evenly spaced sample of them is used.
        mean, std: float32 (C,), of these images, on the model's device.
    """
    if not recipe.whitening:
        return
    num_pixels = images.shape[0] * images.shape[1] * images.shape[2]
    sample = images[:: max(1, num_pixels // NUM_WHITENING_PIXELS)].to(mean.device)
    fit_whitening(model, batch_normalize(sample, mean, std))
