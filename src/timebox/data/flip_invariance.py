"""Horizontal flip test: measures whether images keep their label when they are flipped left to right."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.data.dataset import ImageDataset

SIDE = 8  # pixels
MAX_REFERENCES = 4096
MAX_QUERIES = 1024


@dataclass(frozen=True)
class FlipInvariance:
    """Accuracy of a nearest-neighbour classifier on original and on flipped images, over ``num_images`` images each."""

    accuracy: float
    flipped_accuracy: float
    num_images: int

    @property
    def keeps_labels(self) -> bool:
        """Whether flipping costs the classifier at most three standard errors of the difference."""
        variance = self.accuracy * (1 - self.accuracy) + self.flipped_accuracy * (1 - self.flipped_accuracy)
        error = math.sqrt(variance / self.num_images)
        return self.accuracy - self.flipped_accuracy <= 3 * error


def measure_flip_invariance(dataset: ImageDataset, seed: int = 0) -> FlipInvariance:
    """Classify original and flipped images by their nearest neighbour, and return both accuracies.

    Up to 1,024 images, drawn with ``seed`` and resized to 8x8 pixels, are compared with up to 4,096 others. Where
    flipping keeps the label, both accuracies agree; for digits, letters and hands the second is far lower.
    """
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randperm(len(dataset), generator=generator)[:MAX_REFERENCES]
    images = torch.from_numpy(dataset.images[indices.numpy()]).permute(0, 3, 1, 2).float()
    small = F.adaptive_avg_pool2d(images, SIDE)
    small = small - small.mean((1, 2, 3), keepdim=True)
    labels = torch.from_numpy(dataset.labels)[indices]
    queries = small[:MAX_QUERIES]
    return FlipInvariance(
        _nearest_accuracy(queries, small, labels), _nearest_accuracy(queries.flip(3), small, labels), len(queries)
    )


def _nearest_accuracy(queries: Tensor, references: Tensor, labels: Tensor) -> float:
    """Accuracy of the nearest reference's label. Query ``i`` is made from reference ``i``, which is left out."""
    distances = torch.cdist(queries.flatten(1), references.flatten(1))
    distances.fill_diagonal_(float("inf"))
    return (labels[distances.argmin(1)] == labels[: len(queries)]).float().mean().item()
