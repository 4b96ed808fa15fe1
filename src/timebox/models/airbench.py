"""The network of the CIFAR speed records: six convolutions behind a whitening layer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models.kernels.chunked_conv import conv3x3
from timebox.models.kernels.dispatch import bias_gelu, can_fuse, kernels_work, max_blur_pool, pool_norm_gelu
from timebox.models.layers import GhostBatchNorm, MaxBlurPool, Whitening

# Large, because running statistics must converge within the few dozen steps of a short training.
NORM_MOMENTUM = 0.4
MIN_NORM_EPSILON = 1e-12
# Pixels: smaller images are enlarged, because the whitening and three halvings would leave nothing of them. (With zero
# padding instead, two of three trainings on 8x8 digits failed.)
MIN_SIDE = 9


@dataclass(frozen=True)
class AirbenchConfig:
    """Hyper-parameters of :class:`Airbench`; the defaults are the published network.

    ``width`` is the number of channels of the first group, ``ghost_size`` 0 the whole batch. ``input_scale`` resizes
    images first: operations are proportional to its square. ``blur_pool`` replaces max pooling by :class:`MaxBlurPool`.
    ``norm_epsilon`` is added to the variances in batch norm: in drawings max pooling leaves channels without any.
    """

    width: int = 64
    ghost_size: int = 0
    logit_scale: float = 1 / 256
    input_scale: float = 1.0
    blur_pool: bool = False
    norm_epsilon: float = 0.0


PUBLISHED = AirbenchConfig()


class Airbench(nn.Module):
    """Three groups of two convolutions at ``width`` × 1, 4, 4 channels, each group halving the image.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498, section 3.1;
    KellerJordan/cifar10-airbench). The whitening layer has 2×2 filters of both signs; its bias is trained in the first
    part of a training only. Global max pooling before the head allows images of any size from 8×8. The weights of the
    head are initialised with a standard deviation of one, and the logits are scaled down in return.

    """

    def __init__(self, in_channels: int, num_classes: int, config: AirbenchConfig = PUBLISHED) -> None:
        super().__init__()
        self.input_scale, width = config.input_scale, config.width
        self.whitening = Whitening(in_channels, 2, padding=0, epsilon=5e-4, signed=True, bias=True)
        channels = (self.whitening.num_filters, width, 4 * width, 4 * width)
        groups = (_Group(channels[i], channels[i + 1], config) for i in range(3))
        self.groups = nn.Sequential(nn.GELU(), *groups)
        self.head = nn.Linear(channels[-1], num_classes, bias=False)
        self.logit_scale = config.logit_scale
        # On the meta device there is nothing to scale, and torch would import its compiler for it.
        if not self.head.weight.is_meta:
            with torch.no_grad():
                self.head.weight.div_(self.head.weight.std())

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, num_classes).

        In training, images of 9 pixels or more are taken in the size they have: the loader has resized them, in fewer
        operations.
        """
        gelu, *groups = self.groups.children()
        is_resized = self.training and min(images.shape[2:]) >= MIN_SIDE
        x = images if is_resized else self.resize_inputs(images)
        x = self._whiten_and_activate(x) if x.is_cuda and self.training else gelu(self.whitening(x))
        for group in groups:
            x = group(x)
        logits: Tensor = self.head(x.amax((2, 3))) * self.logit_scale
        return logits

    def _whiten_and_activate(self, x: Tensor) -> Tensor:
        """Whitening and GELU in training on a GPU, by a kernel that adds the bias if it works there."""
        x, bias = self.whitening.forward_without_bias(x), self.whitening.bounded_bias
        assert bias is not None
        if kernels_work(x.device, x.dtype) and not x.requires_grad:
            return bias_gelu(x, bias)
        return F.gelu(x + bias[:, None, None].to(x.dtype))

    def resize_inputs(self, images: Tensor) -> Tensor:
        """Resize normalised images (N, C, H, W) by ``input_scale``, to sides of at least 9 pixels."""
        size = [max(MIN_SIDE, round(side * self.input_scale)) for side in images.shape[2:]]
        if size == list(images.shape[2:]):
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)


class _Group(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, config: AirbenchConfig) -> None:
        epsilon = max(config.norm_epsilon, MIN_NORM_EPSILON)
        first, second = (GhostBatchNorm(out_channels, config.ghost_size, NORM_MOMENTUM, epsilon) for _ in range(2))
        super().__init__(
            conv3x3(in_channels, out_channels),
            MaxBlurPool() if config.blur_pool else nn.MaxPool2d(2),
            first,
            nn.GELU(),
            conv3x3(out_channels, out_channels),
            second,
            nn.GELU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers; in training on a GPU all layers between two convolutions are one kernel."""
        first, *others = self.children()
        pool, first_norm, _, second, second_norm, _ = others
        assert isinstance(first_norm, GhostBatchNorm) and isinstance(second_norm, GhostBatchNorm)
        x = first(x)
        if not can_fuse(x, first_norm):
            for layer in others:
                x = layer(x)
            return x
        if isinstance(pool, MaxBlurPool):
            x = pool_norm_gelu(max_blur_pool(x), first_norm, pooled=False)
        else:
            x = pool_norm_gelu(x, first_norm, pooled=True)
        return pool_norm_gelu(second(x), second_norm, pooled=False)
