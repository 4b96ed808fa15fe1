"""The memory that inference takes, found without allocating it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Of the largest operation's inputs and outputs: what is held beside them, by callers and by the library of
# convolutions. Measured on all networks with images of 256 to 1,024 pixels: 1.1 to 1.9.
_OVERHEAD = 2


def inference_bytes(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Bytes that one image takes in inference, weights left out, in float32.

    Args:
        model: on the meta device, in evaluation mode.
        image_shape: (height, width, channels).
    """
    height, width, channels = image_shape
    largest = _LargestOperation()
    with torch.inference_mode(), largest:
        model(torch.empty((1, channels, height, width), device="meta")).softmax(1)
    return largest.num_bytes * _OVERHEAD


class _LargestOperation(TorchDispatchMode):
    """Finds the operation with the largest inputs and outputs; parameters count little, and are included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_bytes: int = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = {id(leaf): leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)}
        self.num_bytes = max(self.num_bytes, sum(int(tensor.nbytes) for tensor in tensors.values()))
        return result
