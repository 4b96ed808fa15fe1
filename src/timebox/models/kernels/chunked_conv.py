"""A 3×3 convolution whose weight gradient is computed in chunks of the batch, on a CPU in bf16.

With several threads oneDNN makes them wait for each other once for every image of that gradient, where there are four
times as many output as input channels. Beside four busy programs on two processors the gradient of 256 images then
takes 3 s in place of 14 ms (Zen 4). Python code that runs between chunks can end such a step.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Images of a chunk. On idle processors the gradient of 256 images, 32 to 128 channels, takes 15.6 in place of 14.3 ms.
CHUNK_IMAGES = 32
# From this ratio of output to input channels on.
MIN_CHANNEL_RATIO = 4


class ChunkedConv2d(nn.Conv2d):
    """A 3×3 convolution without bias that keeps the size of its input.

    Attributes:
        between_chunks: called before each chunk of the weight gradient; an exception that it raises ends the backward
            pass.
    """

    between_chunks: Callable[[], None] | None = None

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        is_bf16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        if not (self.training and is_bf16 and x.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(x)
        output: Tensor = _ChunkedConv.apply(  # type: ignore[no-untyped-call]
            x.bfloat16(), self.weight.bfloat16(), self
        )
        return output


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3×3 convolution without bias that keeps the size of its input, chunked where it has many more outputs."""
    if out_channels >= MIN_CHANNEL_RATIO * in_channels:
        return ChunkedConv2d(in_channels, out_channels)
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class _ChunkedConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, layer: ChunkedConv2d) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (x, weight), (needs_x, needs_weight, _) = ctx.saved_tensors, ctx.needs_input_grad
        grad_x = _gradient(grad_output, x, weight, "input") if needs_x else None
        grad_weight = None
        if needs_weight:
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            for part, images in zip(grad_output.split(CHUNK_IMAGES), x.split(CHUNK_IMAGES), strict=True):
                if ctx.layer.between_chunks:
                    ctx.layer.between_chunks()
                grad_weight += _gradient(part, images, weight, "weight")
        return grad_x, grad_weight, None


def _gradient(grad_output: Tensor, x: Tensor, weight: Tensor, of: Literal["input", "weight"]) -> Tensor:
    """The gradient with respect to the input or to the weights."""
    one, zero, mask = [1, 1], [0, 0], [of == "input", of == "weight", False]
    backward = torch.ops.aten.convolution_backward
    gradients = backward(grad_output, x, weight, None, one, one, one, False, zero, 1, mask)
    gradient: Tensor = gradients[0 if of == "input" else 1]
    return gradient
