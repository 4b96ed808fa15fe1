"""Layers the networks share."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over groups of a batch, with its scale frozen at one.

    Statistics over ``ghost_size`` images instead of the whole batch regularise as a small batch does (Hoffer et al.,
    arXiv 1705.08741). The scale is frozen because the next layer's weights can take its place; the shift is what
    learns (cifar10-fast, "bag of tricks"). Statistics and normalisation are float32 whatever the input's type.

    Args:
        num_channels: C of the input (N, C, H, W).
        ghost_size: images per group; 0 takes the whole batch. A last group of a single image joins the one before.
        momentum: how fast the running statistics follow, 0...1.
    """

    def __init__(self, num_channels: int, ghost_size: int = 0, momentum: float = 0.1) -> None:
        super().__init__(num_channels, momentum=momentum)
        self.ghost_size = ghost_size
        self.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        normalize = super().forward
        if not self.training or not 0 < self.ghost_size < len(x):
            return normalize(x)
        groups = list(x.split(self.ghost_size))
        if len(groups[-1]) == 1:
            groups[-2:] = [torch.cat(groups[-2:])]
        return torch.cat([normalize(group) for group in groups])


class ConvBlock(nn.Sequential):
    """3×3 convolution, optional 2×2 max-pool, normalisation, activation, in this order.

    Pooling before the normalisation is cifar10-fast's early max-pool: a quarter of the work for the two layers
    after it, at no loss.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pool: bool = False, ghost_size: int = 0, celu_alpha: float = 0.3
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, GhostBatchNorm(out_channels, ghost_size), nn.CELU(celu_alpha))


class Residual(nn.Sequential):
    """What the layers inside compute, added to what went in."""

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for layer in self:
            residual = layer(residual)
        return x + residual


class Whitening(nn.Module):
    """A fixed first convolution that decorrelates 3×3 patches (cifar10-fast; "input patch whitening").

    Its filters are the eigenvectors of the covariance of the training images' patches, each scaled to unit variance.
    They come from the data, not from training: call :meth:`fit` once before the first step.

    Args:
        in_channels: C of the normalised images (N, C, H, W).
    """

    EPSILON = 1e-2

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        num_filters = in_channels * 9
        # Not torch.eye: on the meta device, where a run's network is first built, its first use takes a second.
        identity = torch.tensor(np.eye(num_filters, dtype=np.float32))
        self.register_buffer("weight", identity.reshape(num_filters, in_channels, 3, 3))
        self.weight: Tensor

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Set the filters from normalised images, floating point (N, C, H, W), of which a few thousand are plenty."""
        patches = F.unfold(images.float(), 3).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(0)
        covariance = (patches.T @ patches / len(patches)).double().cpu()
        variances, vectors = torch.linalg.eigh(covariance)
        filters = vectors.T / (variances + self.EPSILON).clamp_min(self.EPSILON).sqrt()[:, None]
        self.weight.copy_(filters.flip(0).reshape(self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=1)
