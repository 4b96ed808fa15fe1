"""Networks of the user's: built from a function, a class or a module, and checked before any time goes into them."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from timebox.custom import needs_two
from timebox.errors import UsageError

NUM_CHECKED = 2  # images: batch normalisation needs two


def build_own(code: Callable[..., Any], image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network that code of the user's makes, or a copy of the network that it is; on the CPU, checked.

    A function or class is called with the number of classes, and with the shape of the images where its second
    parameter has no default or is called ``image_shape``.

    Args:
        image_shape: (C, H, W).
    Raises:
        UsageError: where that is no network, or its output is not (N, num_classes).
    """
    network = copy.deepcopy(code) if isinstance(code, nn.Module) else _call(code, image_shape, num_classes)
    if not isinstance(network, nn.Module):
        raise UsageError(f"network must make a torch.nn.Module, and made a {type(network).__name__}")
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("network has no parameters to train")
    if any(not weight.is_floating_point() or weight.dtype != torch.float32 for weight in network.parameters()):
        raise UsageError("network must have parameters in float32: precision is chosen by timebox")
    images = torch.zeros((NUM_CHECKED, *image_shape))
    network = _in_memory_format(network, images)
    _check_output(_outputs(network, images), num_classes)
    return network


def _call(code: Callable[..., Any], image_shape: tuple[int, int, int], num_classes: int) -> object:
    if needs_two(code, "image_shape"):
        return code(num_classes, image_shape)
    first = next(iter(inspect.signature(code).parameters.values()), None)
    by_place = first is not None and first.kind in (first.POSITIONAL_ONLY, first.POSITIONAL_OR_KEYWORD)
    return code(num_classes) if by_place else code(num_classes=num_classes)


def _in_memory_format(network: nn.Module, images: Tensor) -> nn.Module:
    """The network in channels_last, which is faster for convolutions, where it can compute so; else contiguous, as one
    needs that takes views of its activations."""
    in_channels_last: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        _outputs(in_channels_last, images.to(memory_format=torch.channels_last))
    except RuntimeError:
        contiguous: nn.Module = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        contiguous.register_forward_pre_hook(_contiguous)
        return contiguous
    return in_channels_last


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in inputs)


def _outputs(network: nn.Module, images: Tensor) -> object:
    was_training = network.training
    try:
        with torch.no_grad():
            return network.eval()(images)
    finally:
        network.train(was_training)


def _check_output(outputs: object, num_classes: int) -> None:
    wanted = (NUM_CHECKED, num_classes)
    if not isinstance(outputs, Tensor):
        raise UsageError(
            f"network must return logits, a tensor (N, {num_classes}); it returns a {type(outputs).__name__}"
        )
    if tuple(outputs.shape) != wanted:
        raise UsageError(
            f"network must return logits of shape (N, {num_classes}) for N images in {num_classes} classes; for "
            f"{NUM_CHECKED} images it returns {tuple(outputs.shape)}"
        )
