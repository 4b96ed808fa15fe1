"""ResNet-18 for CIFAR-sized images, for the super-convergence experiment."""

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (He et al., arXiv 1512.03385, option B)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            mix = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.shortcut = nn.Sequential(mix, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        # Subsample before the 1×1 convolution instead of a stride: with AVX-512 and at most 8 channels the gradient of
        # a strided 1×1 convolution writes out of bounds (torch 2.13).
        return F.relu(residual + self.shortcut(x[:, :, :: self.stride, :: self.stride]))


class ResNet18(nn.Module):
    """A 3×3 first convolution without pooling, then four stages of two blocks at ``width`` × 1, 2, 4, 8 channels."""

    def __init__(self, in_channels: int, num_classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for position in range(2):
                stride = 2 if stage > 0 and position == 0 else 1
                blocks.append(BasicBlock(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, num_classes)."""
        features = self.blocks(F.relu(self.norm(self.conv(images))))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits
