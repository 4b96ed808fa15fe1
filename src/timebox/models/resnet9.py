"""ResNet-9: the nine-layer residual network of cifar10-fast, for images of any size and number of classes."""

from dataclasses import dataclass

from torch import Tensor, nn

from timebox.models.layers import ConvBlock, GhostBatchNorm, Residual, Whitening


@dataclass(frozen=True)
class ResNet9Config:
    """Hyper-parameters of :class:`ResNet9`; the defaults are the published network.

    ``width`` is the number of channels of the first stage, ``ghost_size`` 0 the whole batch. With ``whitening`` the
    first layer is a :class:`Whitening`, followed by a 1×1 convolution; else it is a 3×3 convolution.
    """

    width: int = 64
    whitening: bool = True
    ghost_size: int = 32
    celu_alpha: float = 0.3
    logit_scale: float = 0.0625


PUBLISHED = ResNet9Config()


class ResNet9(nn.Module):
    """Four stages of ``width`` × 1, 2, 4, 8 channels; residual blocks after stages one and three.

    Source: D. Page, "How to train your ResNet" (davidcpage/cifar10-fast), with its later changes: early max pooling,
    CELU, ghost batch norm with frozen weight, whitening. Global max pooling before the head allows images of any size
    from 8×8. The logits are scaled down to keep them small under large learning rates.
    """

    def __init__(self, in_channels: int, num_classes: int, config: ResNet9Config = PUBLISHED) -> None:
        super().__init__()
        w, ghost_size, celu_alpha = config.width, config.ghost_size, config.celu_alpha

        def block(inputs: int, outputs: int, pool: bool = False) -> ConvBlock:
            return ConvBlock(inputs, outputs, pool=pool, ghost_size=ghost_size, celu_alpha=celu_alpha)

        if config.whitening:
            mix = nn.Conv2d(in_channels * 9, w, 1, bias=False)
            self.first = nn.Sequential(Whitening(in_channels), mix, GhostBatchNorm(w, ghost_size), nn.CELU(celu_alpha))
        else:
            self.first = block(in_channels, w)
        self.stage1 = nn.Sequential(block(w, 2 * w, pool=True), Residual(block(2 * w, 2 * w), block(2 * w, 2 * w)))
        self.stage2 = block(2 * w, 4 * w, pool=True)
        self.stage3 = nn.Sequential(block(4 * w, 8 * w, pool=True), Residual(block(8 * w, 8 * w), block(8 * w, 8 * w)))
        self.head = nn.Linear(8 * w, num_classes, bias=False)
        self.logit_scale = config.logit_scale

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, num_classes)."""
        features = self.stage3(self.stage2(self.stage1(self.first(images))))
        logits: Tensor = self.head(features.amax((2, 3))) * self.logit_scale
        return logits
