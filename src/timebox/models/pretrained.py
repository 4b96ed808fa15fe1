"""A classifier on pretrained features, and its blend with a network that was trained from scratch."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models.efficientnet_lite import NUM_FEATURES, EfficientNetLite0

# Lower bound of probabilities before their logarithm is taken.
SMALLEST_PROBABILITY = 1e-7


class PretrainedClassifier(nn.Module):
    """A linear head on the features of a pretrained network.

    Args:
        side: length in pixels to which the shorter side of the images is brought.
    """

    def __init__(self, num_classes: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.backbone = EfficientNetLite0()
        self.head = nn.Linear(NUM_FEATURES, num_classes)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer("shift", torch.zeros(3))
        self.scale: Tensor
        self.shift: Tensor

    def accept_normalized(self, mean: Tensor, std: Tensor) -> None:
        """Set the classifier up for images that were normalised with these statistics, float32 (C,), of pixels in
        0...1: its backbone was trained on pixels in -1...1."""
        mean, std = (values[:3].expand(3) for values in (mean, std))
        self.scale, self.shift = (255 * std / 128).to(self.scale), ((255 * mean - 127) / 128).to(self.shift)

    def backbone_inputs(self, inputs: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) as the backbone takes them: three channels, grey repeated and alpha left out,
        and a shorter side of ``side`` pixels."""
        colour = inputs[:, :3] if inputs.shape[1] >= 3 else inputs.expand(-1, 3, -1, -1)
        scaled = colour * self.scale[:, None, None] + self.shift[:, None, None]
        height, width = inputs.shape[2:]
        size = (round(height * self.side / min(height, width)), round(width * self.side / min(height, width)))
        if size == (height, width):
            return scaled
        return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False)

    def features(self, inputs: Tensor) -> Tensor:
        """Features (N, 1280) of normalised images (N, C, H, W)."""
        features: Tensor = self.backbone(self.backbone_inputs(inputs))
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (N, num_classes) of normalised images (N, C, H, W)."""
        logits: Tensor = self.head(self.features(inputs))
        return logits


@dataclass(frozen=True)
class BlendWeights:
    """How the probabilities of a network and of a pretrained classifier become one: their logarithms are averaged.

    Attributes:
        share: weight of the pretrained classifier, 0...1.
        temperature: by which the logarithms of the network's probabilities are divided first.
    """

    share: float
    temperature: float

    def average(self, network: Tensor, pretrained: Tensor) -> Tensor:
        """Probabilities (N, num_classes), from those of the two."""
        own, other = (probabilities.clamp_min(SMALLEST_PROBABILITY).log() for probabilities in (network, pretrained))
        return ((1 - self.share) / self.temperature * own + self.share * other).softmax(1)


class Blend(nn.Module):
    """A network and a pretrained classifier, whose class probabilities are averaged."""

    def __init__(self, network: nn.Module, pretrained: PretrainedClassifier, weights: BlendWeights) -> None:
        super().__init__()
        self.network, self.pretrained, self.weights = network, pretrained, weights

    def forward(self, inputs: Tensor) -> Tensor:
        """Logarithms of the probabilities (N, num_classes) of normalised images (N, C, H, W)."""
        if self.weights.share == 1:
            return self.pretrained(inputs).log_softmax(1)  # type: ignore[no-any-return]
        return self.weights.average(self.network(inputs).softmax(1), self.pretrained(inputs).softmax(1)).log()
