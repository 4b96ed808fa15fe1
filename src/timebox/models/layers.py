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
        epsilon: added to the variances, above 0.
    """

    def __init__(self, num_channels: int, ghost_size: int = 0, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__(num_channels, eps=epsilon, momentum=momentum)
        self.ghost_size = ghost_size
        self.weight.requires_grad_(False)

    def num_groups(self, num_images: int) -> int:
        """How many groups so many images are normalised in."""
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


class MaxBlurPool(nn.Module):
    """The maxima of all 2×2 windows, and of every second one of them, both ways, the mean of 2×2.

    It halves (N, C, H, W) as ``nn.MaxPool2d(2)`` does. There windows lie side by side, and an image that moves by a
    pixel has other maxima; the mean over windows that overlap hardly changes. Source: R. Zhang, "Making Convolutional
    Networks Shift-Invariant Again" (arXiv 1904.11486), with his smallest filter.
    """

    def forward(self, x: Tensor) -> Tensor:
        maxima = F.max_pool2d(x, 2, stride=1)
        return F.avg_pool2d(maxima, 2, ceil_mode=True, count_include_pad=False)


class Residual(nn.Sequential):
    """What the layers inside compute, added to what went in."""

    def forward(self, x: Tensor) -> Tensor:
        residual = x
        for layer in self:
            residual = layer(residual)
        return x + residual


class Whitening(nn.Module):
    """A fixed first convolution that decorrelates patches (cifar10-fast; "input patch whitening").

    Its filters are the eigenvectors of the covariance of the training images' patches, each scaled to unit variance.
    They come from the data, not from training: call :meth:`fit` once before the first step. Until then they pass
    patches on as they are.

    Args:
        in_channels: C of the normalised images (N, C, H, W).
        kernel_size: side of a patch in pixels.
        padding: pixels of zeros around the image.
        epsilon: added to the variances, above 0, so that what hardly varies is not blown up.
        signed: whether each filter comes with its negative, so that an activation after it loses nothing.
        bias: whether a bias that learns is added.
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
        # By numpy: on the meta device, where a run's network is first built, torch.eye and torch.cat load its compiler.
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
        """Set the filters from normalised images, floating point (N, C, H, W), of which a few thousand are plenty."""
        patches = F.unfold(images.float(), self.weight.shape[-1]).transpose(1, 2).flatten(0, 1)
        patches = patches - patches.mean(0)
        covariance = (patches.T @ patches / len(patches)).double().cpu()
        variances, vectors = torch.linalg.eigh(covariance)
        filters = vectors.T / (variances + self.epsilon).clamp_min(self.epsilon).sqrt()[:, None]
        filters = filters.flip(0)
        self.weight.copy_((torch.cat((filters, -filters)) if self.signed else filters).reshape(self.weight.shape))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def forward_without_bias(self, x: Tensor) -> Tensor:
        """The output before the bias."""
        return F.conv2d(x, self.weight, padding=self.padding)


@torch.no_grad()
def start_at_identity(model: nn.Module) -> None:
    """Let the first filters of every 3×3 convolution pass its inputs on, the others stay as they were drawn.

    A deep network then starts close to a shallow one (K. Jordan, arXiv 2404.00498, section 3.3).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            passed_on = module.weight[: module.in_channels].zero_()
            passed_on[:, :, 1, 1].fill_diagonal_(1.0)
