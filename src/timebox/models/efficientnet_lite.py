"""EfficientNet-Lite0 without its classifier, for features that were learnt on other images."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

# Kernel, stride, expansion, channels and number of the blocks of each stage (M. Tan and Q. Le 2019, arXiv 1905.11946,
# table 1). The Lite networks have no squeeze-and-excitation, and ReLU6 in place of SiLU.
STAGES = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1),
)  # fmt: skip
STEM_CHANNELS, NUM_FEATURES = 32, 1280
# Numbers of first blocks that fine-tuning may leave as they are; channels and stride, in pixels of the image, of the
# activations that the next block takes.
FROZEN_BLOCKS = {15: (192, 32), 13: (192, 32), 11: (112, 16)}
BATCH_NORM_EPSILON = 1e-3


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's padding: where its width is odd, right and bottom get the larger half."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[2:])
        if height % 2 == width % 2 == 0:
            padding = (height // 2, width // 2)
            return F.conv2d(input, self.weight, self.bias, self.stride, padding, groups=self.groups)
        padded = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class SmallMapDepthwise(torch.autograd.Function):
    """A depthwise convolution with padding, of feature maps smaller than its kernel, with a faster gradient on a CPU.

    For the gradient of the weights of 1,152 channels of 4x4 pixels under a 5x5 kernel oneDNN takes 34 ms (32 images,
    two cores with AVX2), ten times as long as one product for each place of the kernel.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return F.conv2d(inputs, weight, bias, padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (inputs, weight), (grad,) = ctx.saved_tensors, grads
        kernel, padding = weight.shape[2], weight.shape[2] // 2
        grad_inputs = None
        if ctx.needs_input_grad[0]:
            grad_inputs = conv2d_input(inputs.shape, weight, grad, padding=padding, groups=len(weight))
        rows = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
        grad_rows = grad.permute(0, 2, 3, 1)
        height, width = grad_rows.shape[1:3]
        grad_weight = weight.new_empty(kernel, kernel, len(weight))
        for y in range(kernel):
            for x in range(kernel):
                grad_weight[y, x] = (rows[:, y : y + height, x : x + width] * grad_rows).sum((0, 1, 2))
        return grad_inputs, grad_weight.permute(2, 0, 1)[:, None], grad.sum((0, 2, 3))


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, and back (M. Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = SameConv(inputs, inner) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, outputs)
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu6(self.expand(inputs), inplace=True) if self.expand else inputs
        outputs: Tensor = self.project(F.relu6(self._in_each_channel(hidden), inplace=True))
        return outputs + inputs if self.is_residual else outputs

    def _in_each_channel(self, hidden: Tensor) -> Tensor:
        """The depthwise convolution, without autocast: on a CPU the gradient of its weights takes several times as long
        in bf16."""
        device = hidden.device.type
        if not torch.is_autocast_enabled(device):
            return self._depthwise(hidden)
        with torch.autocast(device, enabled=False):
            return self._depthwise(hidden.float())

    def _depthwise(self, hidden: Tensor) -> Tensor:
        layer = self.depthwise
        is_small = layer.stride[0] == 1 and max(hidden.shape[2:]) < layer.kernel_size[0]
        if is_small and hidden.device.type == "cpu" and layer.weight.requires_grad and torch.is_grad_enabled():
            return SmallMapDepthwise.apply(hidden, layer.weight, layer.bias)  # type: ignore[no-any-return,no-untyped-call]
        return layer(hidden)  # type: ignore[no-any-return]


class EfficientNetLite0(nn.Module):
    """Maps images float32 (N, 3, H, W) in -1...1 to features (N, 1280), means over the last feature map.

    The batch norms are part of the convolutions, see :func:`fold_batch_norms`: their statistics stay as published.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.Sequential(*_blocks())
        self.last = SameConv(STAGES[-1][3], NUM_FEATURES)

    def forward(self, images: Tensor) -> Tensor:
        num_blocks = len(self.blocks)
        return self.tuned_part(self.frozen_part(images, num_blocks), num_blocks)

    def frozen_part(self, images: Tensor, num_frozen: int) -> Tensor:
        """Activations (N, C, h, w) after so many blocks; FROZEN_BLOCKS has C and the stride."""
        activations: Tensor = self.blocks[:num_frozen](F.relu6(self.stem(images), inplace=True))
        return activations

    def tuned_part(self, activations: Tensor, num_frozen: int) -> Tensor:
        """Features (N, 1280) of the activations after so many blocks."""
        return F.relu6(self.last(self.blocks[num_frozen:](activations)), inplace=True).mean((2, 3))

    def tuned_layers(self, num_frozen: int) -> tuple[nn.Module, ...]:
        """The layers of :meth:`tuned_part`."""
        return self.blocks[num_frozen:], self.last


def _blocks() -> Iterator[InvertedResidual]:
    inputs = STEM_CHANNELS
    for kernel, stride, expansion, outputs, number in STAGES:
        for position in range(number):
            yield InvertedResidual(inputs, outputs, kernel, stride if position == 0 else 1, expansion)
            inputs = outputs


def fold_batch_norms(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of :class:`EfficientNetLite0`, from those of convolutions and batch norms under the names of the
    package efficientnet_pytorch. Raises KeyError where one is missing."""
    folded = {}
    for name, (conv, norm) in _published_names().items():
        scale = published[f"{norm}.weight"] / torch.sqrt(published[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
        folded[f"{name}.weight"] = published[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{name}.bias"] = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * scale
    return folded


def _published_names() -> dict[str, tuple[str, str]]:
    """The names of the convolution and the batch norm that each of our convolutions is made of."""
    names = {"stem": ("_conv_stem", "_bn0"), "last": ("_conv_head", "_bn1")}
    expansions = [expansion for _, _, expansion, _, number in STAGES for _ in range(number)]
    for number, expansion in enumerate(expansions):
        ours, theirs = f"blocks.{number}", f"_blocks.{number}"
        if expansion > 1:
            names[f"{ours}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
        names[f"{ours}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        names[f"{ours}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
    return names
