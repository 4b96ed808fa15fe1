"""The training set, resident on the device that trains, served as augmented batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.data.dataset import ImageDataset
from timebox.data.device import augment
from timebox.data.device.resize import WHOLE, Resizing, batch_resize, scaled_size

# The streams of networks trained side by side are so many epochs apart. An odd number: what one network sees mirrored,
# its neighbour sees as it is, in the epoch of the same number.
STREAM_EPOCHS = 2**20 + 1


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, anew each epoch.

    Args:
        crop_padding: largest shift of the crop window in pixels, 0 for none; at most the image's side less one.
        flip: ``none``, ``random`` or ``alternating`` mirroring left to right.
        cutout_size: side of the blanked square in pixels, 0 for none.
        mixup: share of the images that are blended with another, 0...1.
        mixup_until: progress after which none is, 0...1.
    """

    crop_padding: int = 0
    flip: str = "none"
    cutout_size: int = 0
    mixup: float = 0.0
    mixup_until: float = 1.0


@dataclass(frozen=True, eq=False)
class Batch:
    """images float32 (K·B, C, H, W) normalised, channels_last; labels int64 (K·B,), or where they are blended what each
    class has of them, float32 (K·B, num_classes); both on the device. K is the number of networks trained side by side,
    B the batch size: the first B are the first network's."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Samples:
    """Some of a stream, in order; all tensors (M,) and on the device.

    Attributes:
        indices: int64, which images, as places among those held here.
        chance: what chance makes of them: how they are seen, by the names of :func:`batch_views`,
            int64 ``centre_y`` and ``centre_x`` of the blanked square, and float32 ``blend``, the share that the next of
            the stream has in an image; what is not done to them is not there.
    """

    indices: Tensor
    chance: Mapping[str, Tensor]

    def part(self, begin: int, end: int) -> "Samples":
        """Those from ``begin`` on, before ``end``."""
        return Samples(self.indices[begin:end], {name: values[begin:end] for name, values in self.chance.items()})

    @classmethod
    def joined(cls, parts: "Sequence[Samples]") -> "Samples":
        """One after the other; to all of them the same is done."""
        if len(parts) == 1:
            return parts[0]
        chance = {name: torch.cat([part.chance[name] for part in parts]) for name in parts[0].chance}
        return cls(torch.cat([part.indices for part in parts]), chance)


@dataclass(frozen=True)
class Share:
    """What one of several processes, which train together, takes of the data.

    Args:
        rank, size: its number, 0...size - 1, and how many there are.
        holds_part: whether it holds only every ``size``-th image, from the ``rank``-th on, and takes its part of each
            batch from these. Else it holds all of them, and the batches are those of a single process.
    """

    rank: int = 0
    size: int = 1
    holds_part: bool = False

    def of(self, count: int) -> tuple[int, int]:
        """Begin and end of its part of ``count`` things in order."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size


ALL = Share()


@dataclass(frozen=True, eq=False)
class ResidentImages:
    """A data set on the device that trains: images uint8 (N, H, W, C), labels int64 (N,), each below num_classes."""

    images: Tensor
    labels: Tensor
    num_classes: int

    @classmethod
    def of(cls, dataset: ImageDataset, device: torch.device, share: Share = ALL) -> "ResidentImages":
        """A copy on the device, of what a process holds."""
        held = slice(share.rank, None, share.size) if share.holds_part else slice(None)
        images, labels = (torch.from_numpy(values[held]).to(device) for values in (dataset.images, dataset.labels))
        return cls(images, labels, dataset.num_classes)


class DeviceLoader:
    """Serves batch after batch of one endless stream of epochs; each image comes once per epoch.

    Samples are numbered through all epochs: batch ``b`` holds the numbers ``b * batch_size`` onwards, so every batch
    has the same size (an epoch may end inside one) and any of them can be made without those before it. The images
    stay uint8; only one batch at a time is ever floating point. An image is blended with the next of its stream, so
    that this too depends on no batch.

    Args:
        dataset: the training images, copied to ``device`` once, or already there.
        batch_size: images per batch, 1 or more.
        mean, std: float32 (C,), see :func:`timebox.data.device.augment.batch_normalize`.
        seed: decides order and augmentation.
        resizing: the size of the images served, by progress; whole images are augmented, then resized.
        num_networks: networks trained side by side, 1 or more. Each has a stream of its own, in another order and
            otherwise augmented; a batch holds their parts one after the other.
        share: what this process takes of each batch, and of the images.
    """

    def __init__(
        self,
        dataset: ImageDataset | ResidentImages,
        batch_size: int,
        mean: Tensor,
        std: Tensor,
        augmentation: Augmentation,
        seed: int,
        device: torch.device,
        resizing: Resizing = WHOLE,
        num_networks: int = 1,
        share: Share = ALL,
    ) -> None:
        resident = ResidentImages.of(dataset, device, share) if isinstance(dataset, ImageDataset) else dataset
        self.images, self.labels, self._num_classes = resident.images, resident.labels, resident.num_classes
        self._num_images = len(dataset) if isinstance(dataset, ImageDataset) else len(resident.labels)
        self.share = share
        self.batch_size = batch_size
        self.mean, self.std = mean.to(device), std.to(device)
        self.augmentation = augmentation
        self.seed = seed
        self.resizing = resizing
        self.num_networks = num_networks
        self._epochs: dict[int, Samples] = {}

    def __len__(self) -> int:
        """How many images an epoch has."""
        return self._num_images

    def size_at(self, progress: float) -> tuple[int, int]:
        """(height, width) in pixels of the images served for a step that begins at ``progress``, 0...1."""
        height, width = self.images.shape[1:3]
        return scaled_size(height, width, self.resizing.share_at(progress))

    def batch(self, number: int, progress: float = 1.0) -> Batch:
        """Batch ``number``, 0 or more, for a step that begins at ``progress``, 0...1; this process's share of it."""
        begin, end = self.share.of(self.batch_size)
        # Samples are numbered through what this process holds.
        start = number * (end - begin) if self.share.holds_part else number * self.batch_size + begin
        count = end - begin + (1 if self.augmentation.mixup else 0)
        streams = (self._samples(start, count, net * STREAM_EPOCHS) for net in range(self.num_networks))
        samples = Samples.joined([part for stream in streams for part in stream])
        images = batch_resize(self._augmented(samples), *self.size_at(progress))
        labels = self.labels[samples.indices]
        if not self.augmentation.mixup:
            return Batch(images, labels)
        share = samples.chance["blend"]
        return self._blended(images, labels, share * (progress <= self.augmentation.mixup_until))

    def _blended(self, images: Tensor, labels: Tensor, share: Tensor) -> Batch:
        """Each image with its share of the next one; the last of each stream is there for the one before it only."""

        def parts(values: Tensor) -> tuple[Tensor, Tensor]:
            """Of all images but the last of each stream, and of the images that follow them."""
            streams = values.unflatten(0, (self.num_networks, -1))
            return streams[:, :-1].flatten(0, 1), streams[:, 1:].flatten(0, 1)

        own_share, _ = parts(share)
        blended = augment.batch_mixup(*parts(images.permute(0, 2, 3, 1)), own_share)
        targets = augment.batch_mixup(*parts(F.one_hot(labels, self._num_classes).float()), own_share)
        return Batch(blended.permute(0, 3, 1, 2), targets)

    def _samples(self, start: int, count: int, first_epoch: int) -> Iterator[Samples]:
        """Samples ``start`` to ``start + count`` of the stream that begins with ``first_epoch``, by epochs."""
        while count:
            epoch, offset = divmod(start + first_epoch * len(self.labels), len(self.labels))
            part = self._epoch(epoch).part(offset, offset + count)
            yield part
            start, count = start + len(part.indices), count - len(part.indices)

    def _epoch(self, epoch: int) -> Samples:
        """All samples of an epoch. Chance is drawn for all of them at once: on a GPU its many small operations would
        take longer to issue, batch by batch, than a small network's step."""
        if epoch not in self._epochs:
            self._epochs.pop(epoch - 2, None)
            self._epochs[epoch] = self._drawn(epoch)
        return self._epochs[epoch]

    def _drawn(self, epoch: int) -> Samples:
        settings, seed = self.augmentation, self.seed
        height, width = self.images.shape[1:3]
        indices = augment.epoch_order(seed, epoch, len(self.labels), self.labels.device)
        epochs = torch.full_like(indices, epoch)
        # Chance goes by an image's place in the whole data set.
        places = indices * self.share.size + self.share.rank if self.share.holds_part else indices

        def whole(stream: int, num_values: int) -> Tensor:
            return (augment.batch_uniform(seed, stream, epochs, places) * num_values).long()

        chance = {}
        if padding := settings.crop_padding:
            chance["shift_y"] = whole(2, 2 * padding + 1) - padding
            chance["shift_x"] = whole(3, 2 * padding + 1) - padding
        if settings.flip == "random":
            chance["flipped"] = augment.random_flips(seed, epochs, places)
        elif settings.flip == "alternating":
            chance["flipped"] = augment.alternating_flips(seed, epochs, places)
        if settings.cutout_size:
            chance["centre_y"], chance["centre_x"] = whole(4, height), whole(5, width)
        if settings.mixup:
            is_blended, share = (augment.batch_uniform(seed, stream, epochs, places) for stream in (6, 7))
            chance["blend"] = torch.where(is_blended < settings.mixup, share / 2, 0.0).float()
        return Samples(indices, chance)

    def _augmented(self, samples: Samples) -> Tensor:
        chance = {name: values for name, values in samples.chance.items() if name != "blend"}
        centre_y, centre_x = chance.pop("centre_y", None), chance.pop("centre_x", None)
        images = augment.batch_views(self.images, samples.indices, **chance)
        normalized = augment.batch_normalize(images, self.mean, self.std)
        if centre_y is None or centre_x is None:
            return normalized
        return augment.batch_cutout(normalized, centre_y, centre_x, self.augmentation.cutout_size)
