"""Whether a data set may be mirrored: a photograph may, a digit or a left hand may not."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.data.dataset import ImageDataset

SIDE = 8
NUM_REFERENCES = 4096
NUM_QUERIES = 1024


@dataclass(frozen=True)
class MirrorTest:
    """Accuracy of a nearest-neighbour classifier on images as they are and mirrored, over ``num_images`` images."""

    accuracy: float
    mirrored_accuracy: float
    num_images: int

    @property
    def allowed(self) -> bool:
        """Mirroring costs the classifier no more than three standard errors of the difference."""
        variance = self.accuracy * (1 - self.accuracy) + self.mirrored_accuracy * (1 - self.mirrored_accuracy)
        error = math.sqrt(variance / self.num_images)
        return self.accuracy - self.mirrored_accuracy <= 3 * error


def mirror_test(dataset: ImageDataset, seed: int = 0) -> MirrorTest:
    """Find out whether mirrored images still look like their own class.

    Each of up to 1,024 images, shrunk to 8×8, is given the class of its nearest neighbour among up to 4,096 others,
    once as it is and once mirrored; its own copy never counts. Where the label lives through mirroring, both accuracies
    agree; digits, letters and hands lose most of theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:NUM_REFERENCES]
    images = torch.from_numpy(dataset.images[chosen.numpy()]).permute(0, 3, 1, 2).float()
    small = F.adaptive_avg_pool2d(images, SIDE)
    small = small - small.mean((1, 2, 3), keepdim=True)
    labels = torch.from_numpy(dataset.labels)[chosen]
    queries = small[:NUM_QUERIES]
    return MirrorTest(
        _nearest_accuracy(queries, small, labels), _nearest_accuracy(queries.flip(3), small, labels), len(queries)
    )


def _nearest_accuracy(queries: Tensor, references: Tensor, labels: Tensor) -> float:
    """Query ``i`` is made from reference ``i``, which is left out of its neighbours."""
    distances = torch.cdist(queries.flatten(1), references.flatten(1))
    distances.fill_diagonal_(float("inf"))
    return (labels[distances.argmin(1)] == labels[: len(queries)]).float().mean().item()
