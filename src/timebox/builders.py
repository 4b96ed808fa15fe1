"""Network, optimizer, augmentation, loss and resizing of a recipe."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from timebox.custom import find, is_code, named_in_errors, needs_two
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
from timebox.models.own import build_own
from timebox.optim import Optimizer, ParameterGroup, adamw_group, muon_group, sgd_group
from timebox.optim.loss import Loss
from timebox.optim.torch_optimizer import TorchOptimizer
from timebox.recipes import Recipe

# Pixels whose patches determine the whitening filters: a million patches give a few dozen variances, in 100 MB.
NUM_WHITENING_PIXELS = 2**20
# Lower bound for the standard deviation of a channel, which is 0 in a constant one.
MIN_STD = 1 / 255
# Bytes of a weight in training: itself, its gradient, momentum and average, in float32.
_TRAINING_BYTES, _UNCHECKED_WEIGHTS = 16, 1 << 24


def build_model(
    recipe: Recipe, in_channels: int, num_classes: int, image_size: tuple[int, int] | None = None
) -> nn.Module:
    """The recipe's network, or its ensemble, with random weights, float32, channels_last, on the CPU.

    Args:
        image_size: (height, width) of the images in pixels, which a network of the user's is built for. Such a network
            is built with its values even where torch's default device is ``meta``.
    Raises:
        UsageError: where its weights, gradients and averages do not fit into memory, or for a network of the user's
            that cannot be used.
    """
    if is_code(recipe.model):
        assert image_size is not None
        return _build_own_networks(recipe, (in_channels, *image_size), num_classes)
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


def _build_own_networks(recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """A network of the user's, or an ensemble of it."""
    code = find(recipe.model, "model")
    with torch.device("cpu"), named_in_errors(recipe.model, "model"):
        networks = [build_own(code, image_shape, num_classes) for _ in range(recipe.ensemble_size)]
    return networks[0] if recipe.ensemble_size == 1 else Ensemble(networks)


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
    says so. The bias of a whitening layer freezes early. An optimizer of the user's has groups of its own. Parameters
    that the network does not train are left out.
    """
    if is_code(recipe.optimizer):
        code = find(recipe.optimizer, "optimizer")
        with named_in_errors(recipe.optimizer, "optimizer"):
            return TorchOptimizer(code([p for p in model.parameters() if p.requires_grad]), recipe.max_lr)
    if recipe.optimizer == "adamw":
        return _build_adamw(model, recipe)
    whitening_biases = [m.bias for m in model.modules() if isinstance(m, Whitening) and m.bias is not None]
    others = [p for p in model.parameters() if p.requires_grad and not any(p is bias for bias in whitening_biases)]
    filters = [p for p in others if p.dim() == 4] if recipe.optimizer == "muon" else []
    weights: list[Tensor] = [p for p in others if p.dim() > 1 and not (filters and p.dim() == 4)]
    decay, bias_multiplier = recipe.weight_decay, recipe.bias_lr_multiplier
    groups: list[ParameterGroup] = [
        sgd_group(weights, decay),
        sgd_group([p for p in others if p.dim() <= 1], decay, bias_multiplier),
        sgd_group(list(whitening_biases), decay, bias_multiplier, recipe.whitening_bias_until),
        muon_group(list(filters), recipe.filter_lr / recipe.max_lr, recipe.filter_momentum, low_precision),
    ]
    return Optimizer([group for group in groups if group.parameters], recipe.max_lr, recipe.max_momentum)


def _build_adamw(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW, with weight decay on matrices and filters only."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        adamw_group([p for p in trained if p.dim() > 1], recipe.max_momentum, recipe.weight_decay),
        adamw_group([p for p in trained if p.dim() <= 1], recipe.max_momentum, 0.0, recipe.bias_lr_multiplier),
    ]
    return Optimizer([group for group in groups if group.parameters], recipe.max_lr, recipe.max_momentum)


def build_augmentation(recipe: Recipe) -> Augmentation:
    """The recipe's augmentation of training images."""
    function = None
    if is_code(recipe.augment):
        code = find(recipe.augment, "augment")
        function = partial(_augment, code, recipe.augment)
    return Augmentation(
        recipe.crop_padding, recipe.flip, recipe.cutout_size, recipe.mixup, recipe.mixup_until, function
    )


def _augment(code: Callable[..., Any], name: str, images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, C, H, W) under an augmentation of the user's. Raises UsageError where it fails."""
    with named_in_errors(name, "augment"):
        _move(code, images.device)
        augmented = code(images, generator) if needs_two(code, "generator") else code(images)
    if not isinstance(augmented, Tensor) or augmented.shape != images.shape:
        got = tuple(augmented.shape) if isinstance(augmented, Tensor) else f"a {type(augmented).__name__}"
        raise UsageError(
            f"the augmentation {name!r} must return images of shape {tuple(images.shape)}, and returned {got}"
        )
    return augmented


def build_loss(recipe: Recipe, class_weights: Tensor | None) -> Loss:
    """The recipe's training loss.

    Args:
        class_weights: float32 (num_classes,), on the device; None for equal weights.
    """
    if not is_code(recipe.loss):
        return Loss(recipe.label_smoothing, class_weights)
    code = find(recipe.loss, "loss")
    if isinstance(code, nn.Module) and any(parameter.requires_grad for parameter in code.parameters()):
        raise UsageError(f"the loss {recipe.loss!r} has parameters, which are not trained: only those of a network are")
    return Loss(0.0, class_weights, partial(_losses, code, recipe.loss))


def _losses(code: Callable[..., Any], name: str, logits: Tensor, labels: Tensor) -> Tensor:
    """Losses (N,) under a loss of the user's. Raises UsageError where it fails."""
    with named_in_errors(name, "loss"):
        _move(code, logits.device)
        losses = code(logits, labels)
    if not isinstance(losses, Tensor) or losses.shape != logits.shape[:1]:
        got = tuple(losses.shape) if isinstance(losses, Tensor) else f"a {type(losses).__name__}"
        raise UsageError(
            f"the loss {name!r} must return a loss for each of {len(logits)} images, shape ({len(logits)},), and "
            f"returned {got}: leave out the mean, as with reduction='none'"
        )
    return losses


def _move(code: Callable[..., Any], device: torch.device) -> None:
    """Bring code of the user's that is a module, such as a loss with class weights, to the device of the training."""
    if isinstance(code, nn.Module):
        code.to(device)


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
