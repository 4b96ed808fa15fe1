"""DeviceLoader: augmented training batches from images that are resident on the device."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.data.device import augment
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.resident import ResidentImages, SmallImages
from timebox.data.device.resize import FULL_SIZE, Resizing, batch_resize

# The epoch numbers of two networks of an ensemble differ by this. It is odd, so that with alternating flips an image
# that one network sees flipped is not flipped for the next network in the same epoch.
STREAM_EPOCHS = 2**20 + 1


@dataclass(frozen=True)
class Augmentation:
    """Random transforms of the training images, drawn anew in each epoch."""

    crop_padding: int = 0  # largest shift of a random crop in pixels, at most the image's side less one
    flip: str = "none"  # horizontal flip: none, random or alternating
    cutout_size: int = 0  # side of the cutout square in pixels, 0 for none
    mixup: float = 0.0  # fraction of the images that are mixed with another image, 0...1
    mixup_until: float = 1.0  # progress after which mixup ends, 0...1
    # Further augmentation of a batch: from float32 (M, C, H, W) in 0...1 and a generator on their device to such.
    function: Callable[[Tensor, torch.Generator], Tensor] | None = None


@dataclass(frozen=True)
class Sampling:
    """The order and grouping of the images of a training."""

    batch_size: int  # images per batch and network, 1 or more
    seed: int  # of the order and the augmentation, 0 or more
    ensemble_size: int = 1  # networks trained side by side, each with its own order and augmentation
    seeds_torch: bool = (
        False  # whether torch's random numbers are seeded for each batch, as a network with dropout needs
    )


@dataclass(frozen=True, eq=False)
class Batch:
    """A training batch on the device, of K networks with B images each: the first B belong to the first network."""

    images: Tensor  # float32 (K·B, C, H, W), normalised, channels_last
    labels: Tensor  # int64 (K·B,); with mixup the class probabilities, float32 (K·B, num_classes)
    indices: Tensor | None = None  # int64 (K·B,), of the images among those of the data set; None where not known

    def slice(self, begin: int, end: int) -> "Batch":
        """Images ``begin`` to ``end``, without ``end``."""
        indices = None if self.indices is None else self.indices[begin:end]
        return Batch(self.images[begin:end], self.labels[begin:end], indices)


@dataclass(frozen=True, eq=False)
class Samples:
    """Consecutive samples of a stream, with their augmentation: (M,) on the device; None where not used."""

    indices: Tensor  # int64, into the resident images
    shift_y: Tensor | None = None  # int64, offset of the random crop in pixels
    shift_x: Tensor | None = None
    is_flipped: Tensor | None = None  # bool, horizontal flip
    cutout_y: Tensor | None = None  # int64, centre of the cutout square in pixels
    cutout_x: Tensor | None = None
    mixup_weight: Tensor | None = None  # float32, 0...0.5, weight of the next sample of the stream

    def __len__(self) -> int:
        return len(self.indices)

    def _columns(self) -> dict[str, Tensor]:
        """The tensors that are used, by name."""
        return {name: values for name, values in vars(self).items() if values is not None}

    def slice(self, begin: int, end: int) -> "Samples":
        """Samples ``begin`` to ``end``, without ``end``."""
        return Samples(**{name: values[begin:end] for name, values in self._columns().items()})

    @classmethod
    def concatenate(cls, parts: "Sequence[Samples]") -> "Samples":
        """The samples of all parts in order. The parts come from one loader, so they use the same transforms."""
        if len(parts) == 1:
            return parts[0]
        columns = [part._columns() for part in parts]
        return cls(**{name: torch.cat([column[name] for column in columns]) for name in columns[0]})


class DeviceLoader:
    """Serves batches of an endless stream of epochs; each epoch holds every image once.

    Samples are numbered through all epochs: batch ``b`` holds samples ``b * batch_size`` onwards. So every batch has
    the same size (an epoch may end inside a batch), and any batch can be made without those before it. The images stay
    uint8 on the device, on a CPU beside small copies of them; only one batch at a time is floating point. Mixup mixes a
    sample with the next sample of its stream, so the result does not depend on the batch size. Images are cropped and
    flipped at the network's full size, or their own if that is smaller, then resized to what the step takes.
    """

    def __init__(
        self,
        dataset: ResidentImages,
        statistics: ChannelStatistics,
        augmentation: Augmentation,
        sampling: Sampling,
        resizing: Resizing = FULL_SIZE,
    ) -> None:
        self.images, self.labels, self.shard = dataset.images, dataset.labels, dataset.shard
        self._num_classes, self._dataset_size = dataset.num_classes, dataset.dataset_size
        self.statistics = statistics.to(dataset.images.device)
        self.augmentation = augmentation
        self.batch_size, self.seed, self.ensemble_size = sampling.batch_size, sampling.seed, sampling.ensemble_size
        self.resizing, self._seeds_torch = resizing, sampling.seeds_torch
        self._source_size = (dataset.images.shape[1], dataset.images.shape[2])
        self._small_images = SmallImages(dataset.images, *resizing.input_size(*self._source_size))
        self._epochs: dict[int, Samples] = {}

    def __len__(self) -> int:
        """Images per epoch, over all ranks."""
        return self._dataset_size

    def size_at(self, progress: float) -> tuple[int, int]:
        """(height, width) in pixels of the images of a step that begins at ``progress``, 0...1."""
        return self.resizing.input_size(*self._source_size, progress)

    def batch(self, number: int, progress: float = 1.0) -> Batch:
        """This rank's part of batch ``number``, 0 or more, for a step that begins at ``progress``, 0...1."""
        if self._seeds_torch:
            torch.manual_seed(augment.batch_seed(self.seed, 9, number, self.shard.rank))
        begin, end = self.shard.bounds(self.batch_size)
        # Samples are numbered through the images this rank holds.
        start = number * (end - begin) if self.shard.holds_shard else number * self.batch_size + begin
        count = end - begin + (1 if self.augmentation.mixup else 0)  # mixup needs the sample after the last one
        streams = (self._samples(start, count, net * STREAM_EPOCHS) for net in range(self.ensemble_size))
        samples = Samples.concatenate([part for stream in streams for part in stream])
        images = self._augment(samples, self.size_at(progress))
        if self.augmentation.function:
            images = self._apply(self.augmentation.function, images, number)
        labels = self.labels[samples.indices]
        if samples.mixup_weight is None:
            return Batch(images, labels, samples.indices)
        weight = samples.mixup_weight * (progress <= self.augmentation.mixup_until)
        return self._mixup(images, labels, weight, samples.indices)

    def _apply(self, function: Callable[[Tensor, torch.Generator], Tensor], images: Tensor, number: int) -> Tensor:
        """Images under a further augmentation, whose random numbers depend on seed, batch number and rank alone: those
        of the generator that it is given, and torch's own."""
        mean, std = (values[:, None, None] for values in (self.statistics.mean, self.statistics.std))
        seed = augment.batch_seed(self.seed, 8, number, self.shard.rank)
        generator = torch.Generator(images.device).manual_seed(seed)
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.random.manual_seed(seed)
            augmented = function((images * std + mean).clamp(0, 1), generator)
        return ((augmented - mean) / std).float().contiguous(memory_format=torch.channels_last)

    def _mixup(self, images: Tensor, labels: Tensor, weight: Tensor, indices: Tensor) -> Batch:
        """Mix each sample with the next one of its stream; the last sample of each stream serves only as a partner."""

        def with_partners(values: Tensor) -> tuple[Tensor, Tensor]:
            """All samples but the last of each stream, and the samples that follow them."""
            streams = values.unflatten(0, (self.ensemble_size, -1))
            return streams[:, :-1].flatten(0, 1), streams[:, 1:].flatten(0, 1)

        weight, _ = with_partners(weight)
        mixed = augment.batch_mixup(*with_partners(images.permute(0, 2, 3, 1)), weight)
        targets = augment.batch_mixup(*with_partners(F.one_hot(labels, self._num_classes).float()), weight)
        return Batch(mixed.permute(0, 3, 1, 2), targets, with_partners(indices)[0])

    def _samples(self, start: int, count: int, first_epoch: int) -> Iterator[Samples]:
        """Samples ``start`` to ``start + count`` of the stream that begins with ``first_epoch``, one part per epoch."""
        while count:
            epoch, offset = divmod(start + first_epoch * len(self.labels), len(self.labels))
            part = self._epoch(epoch).slice(offset, offset + count)
            yield part
            start, count = start + len(part), count - len(part)

    def _epoch(self, epoch: int) -> Samples:
        """All samples of an epoch, drawn at once and kept for two epochs: on a GPU, drawing takes many small kernels,
        which issued batch by batch would take longer than a small network's step."""
        if epoch not in self._epochs:
            self._epochs.pop(epoch - 2, None)
            self._epochs[epoch] = self._draw_epoch(epoch)
        return self._epochs[epoch]

    def _draw_epoch(self, epoch: int) -> Samples:
        settings, seed, shard = self.augmentation, self.seed, self.shard
        height, width = self._source_size
        indices = augment.epoch_order(seed, epoch, len(self.labels), self.labels.device)
        epochs = torch.full_like(indices, epoch)
        # Random numbers are drawn by the index in the whole data set, so that sharding does not change them.
        dataset_indices = indices * shard.num_ranks + shard.rank if shard.holds_shard else indices

        def uniform(stream: int) -> Tensor:
            return augment.batch_uniform(seed, stream, epochs, dataset_indices)

        def integers(stream: int, num_values: int) -> Tensor:
            return (uniform(stream) * num_values).long()

        def shifts(stream: int, axis: int) -> Tensor:
            shift = integers(stream, 2 * settings.crop_padding + 1) - settings.crop_padding
            side = self._small_images.size[axis]
            return (shift * side / self._source_size[axis]).round().long().clamp(1 - side, side - 1)

        columns: dict[str, Tensor] = {}
        if settings.crop_padding:
            columns["shift_y"], columns["shift_x"] = shifts(2, axis=0), shifts(3, axis=1)
        if settings.flip == "random":
            columns["is_flipped"] = augment.random_flips(seed, epochs, dataset_indices)
        elif settings.flip == "alternating":
            columns["is_flipped"] = augment.alternating_flips(seed, epochs, dataset_indices)
        if settings.cutout_size:
            columns["cutout_y"], columns["cutout_x"] = integers(4, height), integers(5, width)
        if settings.mixup:
            columns["mixup_weight"] = torch.where(uniform(6) < settings.mixup, uniform(7) / 2, 0.0).float()
        return Samples(indices, **columns)

    def _augment(self, samples: Samples, size: tuple[int, int]) -> Tensor:
        """Random crop, flip, resizing, normalisation and cutout: float32 (M, C, height, width), channels_last."""
        small, positions = self._small_images.select(samples.indices)
        images = augment.batch_crop_and_flip(small, positions, samples.shift_y, samples.shift_x, samples.is_flipped)
        if not images.is_cuda:  # resizes bytes several times faster; a GPU resizes by products of float32 matrices
            images = batch_resize(images.permute(0, 3, 1, 2), *size).permute(0, 2, 3, 1)
        images = batch_resize(augment.batch_normalize(images, self.statistics.mean, self.statistics.std), *size)
        if samples.cutout_y is None or samples.cutout_x is None:
            return images
        scale_y, scale_x = (after / before for after, before in zip(size, self._source_size, strict=True))
        centre_y, centre_x = (samples.cutout_y * scale_y).long(), (samples.cutout_x * scale_x).long()
        hole = max(1, round(self.augmentation.cutout_size * min(scale_y, scale_x)))
        return augment.batch_cutout(images, centre_y, centre_x, hole)
