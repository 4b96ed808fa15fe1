"""Layers: ghost batch norm, BlurPool, whitening convolution, residual and convolution blocks."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GhostBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over groups of ``ghost_size`` images (0: the batch), with weight one and a trained bias.

    Statistics of few images regularise as a small batch does (Hoffer et al., arXiv 1705.08741). A last group of a
    single image joins the group before. The weight is frozen because the next layer can scale as well (cifar10-fast,
    "bag of tricks"). Statistics and normalisation are float32 for all input dtypes.
    """

    def __init__(self, num_channels: int, ghost_size: int = 0, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__(num_channels, eps=epsilon, momentum=momentum)
        self.ghost_size = ghost_size
        self.weight.requires_grad_(False)

    def num_groups(self, num_images: int) -> int:
        """Number of groups of a batch of ``num_images``."""
        if not 0 < self.ghost_size < num_images:
            return 1
        whole, rest = divmod(num_images, self.ghost_size)
        return whole + (rest > 1)

    def forward(self, x: Tensor) -> Tensor:
        normalize = super().forward
        if not self.training or not 0 < self.ghost_size < len(x):
            return normalize(x)
        groups = list(x.split(self.ghost_size))
        if len(groups[-1]) == 1:
            groups[-2:] = [torch.cat(groups[-2:])]
        return torch.cat([normalize(group) for group in groups])


class ConvBlock(nn.Sequential):
    """3×3 convolution, optional 2×2 max pooling, ghost batch norm, CELU, in this order.

    Early max pooling, before the normalisation, is from cifar10-fast: the two layers after it have a quarter of the
    operations, with the same accuracy.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, pool: bool = False, ghost_size: int = 0, celu_alpha: float = 0.3
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)]
        if pool:
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, GhostBatchNorm(out_channels, ghost_size), nn.CELU(celu_alpha))


class MaxBlurPool(nn.Module):
    """BlurPool: 2×2 max pooling with stride 1, then 2×2 average pooling with stride 2.

    Maps (N, C, H, W) to (N, C, H // 2, W // 2), as ``nn.MaxPool2d(2)`` does. The output changes less when the image
    is shifted by a pixel, because the max pooling windows overlap. Source: R. Zhang, "Making Convolutional Networks
    Shift-Invariant Again" (arXiv 1904.11486), with the smallest of its filters.
    """

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.max_pool2d(x, 2, stride=1)
        return F.avg_pool2d(maxima, 2, ceil_mode=True, count_include_pad=False)


class Residual(nn.Sequential):
    """A residual block: ``x + layers(x)``."""

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for layer in self:
            residual = layer(residual)
        return x + residual


# Variance of a direction of normalised patches that is no more than the rounding of bfloat16 inputs.
NOISE_VARIANCE = 1e-5
# Largest bias of a whitening filter, in standard deviations of its responses.
MAX_BIAS = 10.0


class Whitening(nn.Module):
    """A first convolution with fixed filters that whiten patches (cifar10-fast; "input patch whitening").

    The filters are the eigenvectors of the covariance of the training images' patches, each scaled to unit variance.
    They are fitted to the data, not trained: call :meth:`fit` once before the first step. Before that they are the
    identity. Directions in which patches do not vary, as in grey images saved with three channels, have no filter: the
    others are repeated in their place. The noise of such a direction, scaled to unit variance, would make channels that
    are all but constant, and gradients that overflow in the normalisation behind them.

    Args:
        in_channels: C of the normalised images (N, C, H, W).
        kernel_size: side of a patch in pixels.
        padding: zero padding in pixels.
        epsilon: added to the variances, above 0, so that directions of small variance are not amplified to noise.
        signed: whether the negative of each filter is added, so that the activation loses no information.
        bias: whether a trained bias is added.
    """

    def __init__(
        self,
        in_channels: int,
        kernel_size: int = 3,
        *,
        padding: int = 1,
        epsilon: float = 1e-2,
        signed: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.padding, self.epsilon, self.signed = padding, epsilon, signed
        num_patterns = in_channels * kernel_size**2
        # numpy, because on the meta device torch.eye and torch.cat import torch's compiler, which takes a second.
        identity = np.eye(num_patterns, dtype=np.float32)
        filters = torch.tensor(np.concatenate((identity, -identity)) if signed else identity)
        self.register_buffer("weight", filters.reshape(-1, in_channels, kernel_size, kernel_size))
        self.weight: Tensor
        self.bias = nn.Parameter(torch.zeros(len(filters))) if bias else None

    @property
    def num_filters(self) -> int:
        """Channels of the output."""
        return len(self.weight)

    @torch.no_grad()
    def fit(self, images: Tensor) -> None:
        """Fit the filters to normalised images, floating point (N, C, H, W); a few thousand images are plenty."""
        patches = F.unfold(images.float(), self.weight.shape[-1]).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(0)
        covariance = (patches.T @ patches / len(patches)).double().cpu()
        variances, vectors = torch.linalg.eigh(covariance)
        filters = vectors.T / (variances + self.epsilon).clamp_min(self.epsilon).sqrt()[:, None]
        num_used = int((variances > NOISE_VARIANCE).sum()) or len(filters)
        filters = filters.flip(0)[torch.arange(len(filters)) % num_used]
        self.weight.copy_((torch.cat((filters, -filters)) if self.signed else filters).reshape(self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bounded_bias, padding=self.padding)

    @property
    def bounded_bias(self) -> Tensor | None:
        """The bias, as far as it is sensible: filters have unit variance, and trained biases are below a third. In
        bfloat16 the gradients of channels that hardly vary carry it to thousands."""
        return None if self.bias is None else self.bias.clamp(-MAX_BIAS, MAX_BIAS)

    def forward_without_bias(self, x: Tensor) -> Tensor:
        """The convolution without the bias."""
        return F.conv2d(x, self.weight, padding=self.padding)


@torch.no_grad()
def start_at_identity(model: nn.Module) -> None:
    """Initialise 3×3 convolutions to the identity, as far as channels match (arXiv 2404.00498, section 3.3)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            identity_filters = module.weight[: module.in_channels].zero_()
            identity_filters[:, :, 1, 1].fill_diagonal_(1.0)
