"""The training set in device memory, whole or sharded over the ranks of a process group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from timebox.data.dataset import ImageDataset


@dataclass(frozen=True)
class DataShard:
    """The part of the training data that one rank of a process group works on.

    Where ``holds_shard``, the rank holds every ``num_ranks``-th image, beginning with image ``rank``, and draws its
    part of each batch from these. Else it holds all images, and the ranks share the batches of a single process.
    """

    rank: int = 0
    num_ranks: int = 1
    holds_shard: bool = False

    def bounds(self, count: int) -> tuple[int, int]:
        """(begin, end) of this rank's part of ``count`` items in order."""
        return self.rank * count // self.num_ranks, (self.rank + 1) * count // self.num_ranks


UNSHARDED = DataShard()


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """The images of a data set that lie in the memory of a device."""

    images: Tensor  # uint8 (N, H, W, C)
    labels: Tensor  # int64 (N,), each below num_classes, on the same device
    num_classes: int
    dataset_size: int  # number of images of the whole data set; above N where this rank holds a shard
    shard: DataShard = UNSHARDED

    @classmethod
    def from_dataset(
        cls, dataset: ImageDataset, device: torch.device, shard: DataShard = UNSHARDED
    ) -> "ResidentImages":
        """Copy the images that this rank holds to ``device``."""
        held = slice(shard.rank, None, shard.num_ranks) if shard.holds_shard else slice(None)
        images, labels = (torch.from_numpy(values[held]).to(device) for values in (dataset.images, dataset.labels))
        return cls(images.contiguous(), labels, dataset.num_classes, len(dataset), shard)
