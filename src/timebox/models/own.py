"""Networks of the user's: built from a function, a class or a module, and checked before any time goes into them."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from timebox.custom import needs_two
from timebox.errors import UsageError

NUM_CHECKED = 2  # images: batch normalisation needs two


def build_own(code: Callable[..., Any], image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network that code of the user's makes, or a copy of the network that it is; on the CPU, checked.

    A function or class is called with the number of classes, and with the shape of the images where a parameter is
    called ``image_shape`` or the second one has no default.

    Args:
        image_shape: (C, H, W).
    Raises:
        UsageError: where that is no network, or its output is not (N, num_classes).
    """
    network = copy.deepcopy(code) if isinstance(code, nn.Module) else _call(code, image_shape, num_classes)
    if not isinstance(network, nn.Module):
        raise UsageError(f"network must make a torch.nn.Module, and made a {type(network).__name__}")
    if any(weight.dtype != torch.float32 for weight in network.parameters()):
        raise UsageError("network must have parameters in float32: precision is chosen by timebox")
    network, images = network.cpu(), torch.zeros((NUM_CHECKED, *image_shape))
    _outputs(network, images)  # makes the parameters of lazy layers
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("network has no parameters to train")
    network = _in_memory_format(network, images)
    for is_training in (False, True):
        _check_output(_outputs(network, images, is_training), num_classes)
    return network


def _call(code: Callable[..., Any], image_shape: tuple[int, int, int], num_classes: int) -> object:
    """Call the function, by name for parameters that have the usual names."""
    parameters = inspect.signature(code).parameters
    takes_keywords = all(one.kind in (one.VAR_KEYWORD, one.KEYWORD_ONLY) for one in parameters.values())
    named: dict[str, Any] = {"num_classes": num_classes} if "num_classes" in parameters or takes_keywords else {}
    if "image_shape" in parameters:
        named["image_shape"] = image_shape
    if "num_classes" in named:
        return code(**named)
    given = (num_classes, image_shape) if needs_two(code, "image_shape") else (num_classes,)
    return code(num_classes, **named) if "image_shape" in named else code(*given)


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


def _outputs(network: nn.Module, images: Tensor, is_training: bool = False) -> object:
    """Outputs of the network, whose mode, buffers and random numbers stay as they are."""
    was_training = network.training
    buffers = {name: one.clone() for name, one in network.named_buffers() if not is_lazy(one)}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            return network.train(is_training)(images)
    finally:
        network.train(was_training)
        for name, buffer in network.named_buffers():
            if name in buffers:
                buffer.copy_(buffers[name])


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
