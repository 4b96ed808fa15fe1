"""Networks, augmentations, losses and optimizers of a user's, of many kinds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]


class Mlp(nn.Module):
    """Takes a view of its input, which fails in channels_last, and has dropout."""

    def __init__(self, num_classes: int, image_shape: Shape) -> None:
        super().__init__()
        channels, height, width = image_shape
        self.first = nn.Linear(channels * height * width, 32)
        self.dropout = nn.Dropout(0.1)
        self.last = nn.Linear(32, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.first(images.view(len(images), -1)).relu()
        logits: Tensor = self.last(self.dropout(hidden))
        return logits


class ConvNet(nn.Module):
    """Batch normalisation, an integer buffer, and a default that is no shape."""

    def __init__(self, num_classes: int = 10, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(images)).relu().mean((2, 3)))
        return logits


class TinyVit(nn.Module):
    """Patches, a position embedding of three dimensions, attention, layer norm, and a scale without dimensions."""

    def __init__(self, num_classes: int, image_shape: Shape, width: int = 16) -> None:
        super().__init__()
        channels, height, side = image_shape
        self.patches = nn.Conv2d(channels, width, 4, 4)
        self.positions = nn.Parameter(torch.zeros(1, (height // 4) * (side // 4), width))
        self.block = nn.TransformerEncoderLayer(width, 2, 32, 0.0, batch_first=True, norm_first=True)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.block(tokens).mean(1)) * self.scale
        return logits


class Tied(nn.Module):
    """Two layers with one weight, a frozen parameter, and a parameter that is never used."""

    def __init__(self, num_classes: int, image_shape: Shape) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], 8, 3, padding=1)
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.second.weight = self.first.weight
        self.stem.bias.requires_grad_(False)  # type: ignore[union-attr]
        self.unused = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.second(self.first(self.stem(images)).relu()).relu()
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class Depthwise(nn.Module):
    """Depthwise convolutions, group norm, and a drop path whose rates come from tensors, which fails on ``meta``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.rates = [float(rate) for rate in torch.linspace(0, 0.1, 2)]
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, groups=8) for _ in self.rates)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.stem(images)
        for block, rate in zip(self.blocks, self.rates, strict=True):
            keep = float(torch.rand(()) >= rate) if self.training else 1.0
            hidden = hidden + keep * self.norm(block(hidden)).relu()
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class LeNet(nn.Module):
    """Takes views of what convolutions compute, which fails in channels_last, and has a lazy layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.LazyLinear(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.pool(self.conv(images).relu())
        logits: Tensor = self.head(hidden.view(hidden.shape[0], -1))
        return logits


def without_head(num_classes: int, image_shape: Shape) -> nn.Module:
    """No layer of it is called head."""
    inputs = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, num_classes))


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "mlp": Mlp,
    "conv net": ConvNet,
    "vit": TinyVit,
    "tied": Tied,
    "depthwise": Depthwise,
    "lenet": LeNet,
}


def brighten(images: Tensor, generator: torch.Generator) -> Tensor:
    """Uses the generator that it is given."""
    return images * (0.5 + torch.rand(len(images), 1, 1, 1, generator=generator))


def noise(images: Tensor) -> Tensor:
    """Uses torch's own random numbers, as torchvision does."""
    return images + 0.1 * torch.randn_like(images)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Takes labels as numbers and as probabilities."""
    log_probabilities = logits.log_softmax(1)
    if labels.is_floating_point():
        own = (log_probabilities * labels).sum(1)
    else:
        own = log_probabilities.gather(1, labels[:, None])[:, 0]
    return -((1 - own.exp()) ** 2) * own


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3)


def sgd_with_groups(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    matrices = [one for one in parameters if one.dim() > 1]
    others = [one for one in parameters if one.dim() <= 1]
    return torch.optim.SGD(
        [{"params": matrices, "lr": 0.1}, {"params": others, "lr": 0.2}], momentum=0.9, weight_decay=0.01
    )


def nadam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.NAdam(parameters, lr=1e-3, weight_decay=0.01)


def lbfgs(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(parameters)
