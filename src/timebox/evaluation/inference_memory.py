"""The memory that inference takes, found without allocating it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from timebox.custom import is_code
from timebox.recipes import Recipe

# Multiple of the largest operation's inputs and outputs: callers and the convolution library hold memory beside them.
# Measured on all networks with images of 256 to 1,024 pixels: 1.5 to 1.6 times.
_OVERHEAD = 2
# Inputs and outputs of an operation on the first stage's channels, the largest of each network: a residual sum has 3.
_TENSORS = 4
# Numbers for each pixel: input and output of the first depthwise convolution, 96 channels at half the side.
_PRETRAINED_CHANNELS = 48
# The bound for a network of the user's, whose layers are not known.
UNKNOWN_BYTES = 1 << 62
_MIN_CHANNELS = 32  # the whitening filters have up to 24 channels


def inference_bytes_bound(recipe: Recipe, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """An upper bound of :func:`inference_bytes`, found at once: that function imports a part of torch for 1.5 s."""
    if is_code(recipe.model):
        return UNKNOWN_BYTES
    height, width, _ = image_shape
    pixels = height * width * max(1.0, recipe.input_scale) ** 2
    return int(pixels * max(recipe.width, _MIN_CHANNELS) + num_classes) * torch.float32.itemsize * _TENSORS * _OVERHEAD


def pretrained_bytes(side: int, aspect: float) -> int:
    """An upper bound of the bytes that one image takes in a :class:`PretrainedClassifier`.

    Args:
        side: shorter side of its images in pixels. aspect: height by width.
    """
    pixels = side**2 * max(aspect, 1 / aspect)
    return int(pixels * _PRETRAINED_CHANNELS) * torch.float32.itemsize * _OVERHEAD


def inference_bytes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Bytes that one image takes in inference, weights left out, in float32.

    Args:
        model: on the meta device or the CPU, in evaluation mode.
        image_shape: (height, width, channels).
    """
    height, width, channels = image_shape
    largest = _LargestOperation(model)
    with torch.inference_mode(), largest:
        device = next(model.parameters()).device
        model(torch.zeros((1, channels, height, width), device=device)).softmax(1)
    return largest.num_bytes * _OVERHEAD


class _LargestOperation(TorchDispatchMode):
    """Finds the operation with the largest inputs and outputs, weights of the model left out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes: int = 0
        self._weights = {_storage(weight) for weight in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        sizes = {_storage(tensor): tensor.nbytes for tensor in tensors if _storage(tensor) not in self._weights}
        self.num_bytes = max(self.num_bytes, sum(sizes.values()))
        return result


def _storage(tensor: Tensor) -> int:
    """A number for the memory of a tensor, which its views share, also on the meta device."""
    return int(tensor.untyped_storage()._cdata)
