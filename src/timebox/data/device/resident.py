"""The training set in device memory, whole or sharded over the ranks of a process group; small copies of its images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from timebox.data.dataset import ImageDataset
from timebox.data.device.resize import batch_resize
from timebox.machine import available_memory


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


# Small copies of all images may take this share of the memory that is available; else each batch is shrunk anew.
MAX_COPIES_SHARE = 0.25


class SmallImages:
    """Resident images in the size that a network takes, where that is smaller and the device is a CPU.

    Each image is shrunk when a batch first needs it, and kept. A GPU resizes faster, and gets the images as they are.

    Args:
        images: uint8 (N, H, W, C).
        height, width: of the network's input in pixels.
    Attributes:
        size: (height, width) in pixels of the images that :meth:`select` returns.
    """

    def __init__(self, images: Tensor, height: int, width: int) -> None:
        self._images = images
        self._is_smaller = not images.is_cuda and height < images.shape[1] and width < images.shape[2]
        self.size = (height, width) if self._is_smaller else (images.shape[1], images.shape[2])
        if self._is_smaller:
            shape, available = (len(images), *self.size, images.shape[3]), available_memory()
            is_roomy = available is None or torch.Size(shape).numel() <= MAX_COPIES_SHARE * available
            self._copies = torch.empty(shape, dtype=torch.uint8) if is_roomy else None
            self._is_copied = torch.zeros(len(images), dtype=torch.bool)

    def select(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (M, height, width, C) among which are those at ``indices``, and the positions of these there."""
        if not self._is_smaller:
            return self._images, indices
        if self._copies is None:
            return self._shrunk(indices), torch.arange(len(indices))
        missing = indices[~self._is_copied[indices]]
        if len(missing):
            self._copies.numpy()[missing.numpy()] = self._shrunk(missing).numpy()
            self._is_copied[missing] = True
        return self._copies, indices

    def _shrunk(self, indices: Tensor) -> Tensor:
        images = self._images.index_select(0, indices).permute(0, 3, 1, 2)
        return batch_resize(images, *self.size).permute(0, 2, 3, 1).contiguous()
