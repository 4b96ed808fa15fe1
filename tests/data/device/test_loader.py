"""DeviceLoader: every image once per epoch, batches independent of each other, of the batch size and of the ranks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from timebox.data.dataset import ImageDataset
from timebox.data.device.augment import (
    ChannelStatistics,
    alternating_flips,
    batch_crop_and_flip,
    batch_cutout,
    batch_mixup,
    batch_normalize,
    batch_uniform,
    epoch_order,
)
from timebox.data.device.loader import Augmentation, Batch, DeviceLoader, Sampling
from timebox.data.device.resident import UNSHARDED, DataShard, ResidentImages

CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
STRONG = Augmentation(crop_padding=3, flip="alternating", cutout_size=4)
MIXED = Augmentation(crop_padding=1, flip="alternating", mixup=0.6)


def dataset(num: int = 23, side: int = 8) -> ImageDataset:
    """Every image's label is its own index, so that a batch tells which images it holds."""
    images = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    names = tuple(str(i) for i in range(num))
    return ImageDataset(images, np.arange(num), names, names)


def loader(batch_size: int, augmentation: Augmentation = STRONG, num: int = 23, seed: int = 0) -> DeviceLoader:
    return device_loader(Sampling(batch_size, seed), augmentation, num=num)


def device_loader(
    sampling: Sampling, augmentation: Augmentation, shard: DataShard = UNSHARDED, num: int = 23
) -> DeviceLoader:
    images = ResidentImages.from_dataset(dataset(num), CPU, shard)
    return DeviceLoader(images, ChannelStatistics(MEAN, STD), augmentation, sampling)


def stream(loader: DeviceLoader, num_samples: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the first samples, whatever the batch size."""
    batches = [loader.batch(number) for number in range(-(-num_samples // loader.batch_size))]
    images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])
    return images[:num_samples], labels[:num_samples]


def test_shapes_and_dtypes_of_a_batch() -> None:
    batch = loader(5).batch(0)
    assert batch.images.shape == (5, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.shape == (5,)
    assert batch.labels.dtype == torch.int64
    assert loader(5).images.dtype == torch.uint8
    assert len(loader(5)) == 23


@pytest.mark.parametrize("batch_size", [5, 23, 60])
def test_each_network_of_an_ensemble_sees_every_image_once_an_epoch_in_its_own_order(batch_size: int) -> None:
    alone = loader(batch_size)
    three = device_loader(Sampling(batch_size, 0, ensemble_size=3), STRONG)
    batches = [three.batch(number) for number in range(23)]
    assert all(batch.images.shape == (3 * batch_size, 3, 8, 8) for batch in batches)
    for number, batch in enumerate(batches):
        assert torch.equal(batch.images[:batch_size], alone.batch(number).images), "same as a single network"
    streams = [torch.cat([batch.labels[k * batch_size :][:batch_size] for batch in batches]) for k in range(3)]
    for labels in streams:
        for epoch in labels[: len(labels) // 23 * 23].split(23):
            assert torch.equal(epoch.sort().values, torch.arange(23))
    assert not torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[1], streams[2])


def test_alternating_flips_differ_between_neighbours_in_an_ensemble() -> None:
    pair = device_loader(Sampling(23, 0, ensemble_size=2), Augmentation(flip="alternating"))
    for number in range(4):
        batch = pair.batch(number)
        parts = zip(batch.images.split(23), batch.labels.split(23), strict=True)
        first, second = (images[labels.argsort()] for images, labels in parts)
        assert torch.equal(first, second.flip(3))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 24, 60])
def test_every_image_is_served_once_per_epoch(batch_size: int) -> None:
    _, labels = stream(loader(batch_size), 23 * 4)
    for epoch in labels.split(23):
        assert torch.equal(epoch.sort().values, torch.arange(23))
    assert not torch.equal(labels[:23], labels[23:46])


def test_every_batch_has_the_same_size() -> None:
    for batch_size in (5, 60):
        some = loader(batch_size)
        assert {len(some.batch(number).labels) for number in range(10)} == {batch_size}


def test_a_batch_does_not_depend_on_the_batches_before_it() -> None:
    forwards = loader(5)
    batches = [forwards.batch(number) for number in range(12)]
    for number in (11, 3, 7, 0, 3):
        fresh = loader(5).batch(number)
        again = forwards.batch(number)
        for other in (fresh, again):
            assert torch.equal(other.labels, batches[number].labels)
            assert torch.equal(other.images, batches[number].images)


@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
def test_augmentation_does_not_depend_on_the_batch_size(flip: str) -> None:
    augmentation = Augmentation(crop_padding=3, flip=flip, cutout_size=4)
    images, labels = stream(loader(23, augmentation), 69)
    for batch_size in (1, 4, 50):
        other_images, other_labels = stream(loader(batch_size, augmentation), 69)
        assert torch.equal(other_labels, labels)
        assert torch.equal(other_images, images)


def test_a_batch_equals_the_composed_augmentation_functions() -> None:
    data, seed = dataset(), 9
    batch = loader(23, seed=seed).batch(2)
    indices = epoch_order(seed, 2, 23, CPU)
    epochs = torch.full_like(indices, 2)

    def draw(stream: int, num_values: int) -> Tensor:
        return (batch_uniform(seed, stream, epochs, indices) * num_values).long()

    flipped = alternating_flips(seed, epochs, indices)
    images = batch_crop_and_flip(torch.from_numpy(data.images), indices, draw(2, 7) - 3, draw(3, 7) - 3, flipped)
    expected = batch_cutout(batch_normalize(images, MEAN, STD), draw(4, 8), draw(5, 8), 4)
    assert torch.equal(batch.labels, indices)
    assert torch.equal(batch.images, expected)


def test_a_mixup_batch_equals_the_composed_augmentation_functions() -> None:
    batch = loader(23, MIXED, seed=9).batch(2)
    images, labels = stream(loader(24, Augmentation(crop_padding=1, flip="alternating"), seed=9), 3 * 23 + 1)
    indices, epochs = epoch_order(9, 2, 23, CPU), torch.full((23,), 2)
    is_mixed, uniform = (batch_uniform(9, stream, epochs, indices) for stream in (6, 7))
    weight = torch.where(is_mixed < 0.6, uniform / 2, 0.0).float()
    unmixed, targets = images[46:].permute(0, 2, 3, 1), torch.eye(23)[labels[46:]]
    assert torch.equal(batch.images.permute(0, 2, 3, 1), batch_mixup(unmixed[:-1], unmixed[1:], weight))
    assert torch.equal(batch.labels, batch_mixup(targets[:-1], targets[1:], weight))
    assert 8 <= (weight > 0).sum() <= 20
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_mixup_ends_at_its_progress_and_labels_stay_probabilities() -> None:
    ending = loader(23, replace(MIXED, mixup_until=0.8))
    without_mixup = loader(23, replace(MIXED, mixup=0.0)).batch(2)
    assert torch.equal(ending.batch(2, 0.8).images, loader(23, MIXED).batch(2, 0.8).images)
    unmixed = ending.batch(2, 0.81)
    assert torch.equal(unmixed.images, without_mixup.images)
    assert torch.equal(unmixed.labels, torch.eye(23)[without_mixup.labels])


@pytest.mark.parametrize("ensemble_size", [1, 3])
def test_mixup_partners_do_not_depend_on_the_batch_size(ensemble_size: int) -> None:
    def served(batch_size: int) -> list[tuple[Tensor, Tensor]]:
        some = device_loader(Sampling(batch_size, 0, ensemble_size), MIXED)
        batches = [some.batch(number) for number in range(60 // batch_size)]
        parts = [(batch.images.split(batch_size), batch.labels.split(batch_size)) for batch in batches]
        return [tuple(torch.cat([part[i][k] for part in parts]) for i in (0, 1)) for k in range(ensemble_size)]  # type: ignore[misc]

    for (images, targets), (other_images, other_targets) in zip(served(60), served(4), strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(targets, other_targets)


@pytest.mark.parametrize("mixup", [0.3, 1.0])
def test_mixup_mixes_the_requested_fraction_with_weights_up_to_a_half(mixup: float) -> None:
    targets = loader(2000, Augmentation(mixup=mixup), num=2000).batch(0).labels
    own, other = targets.topk(2).values.T
    assert torch.allclose(own + other, torch.ones(2000), atol=1e-6)
    assert (other > 0).float().mean() == pytest.approx(mixup, abs=0.04)
    assert other[other > 0].mean() == pytest.approx(0.25, abs=0.02)


def test_without_augmentation_images_are_only_normalized() -> None:
    data = dataset()
    batch = loader(23, Augmentation()).batch(0)
    expected = batch_normalize(torch.from_numpy(data.images)[batch.labels], MEAN, STD)
    assert torch.equal(batch.images, expected)


def test_alternating_flips_flip_every_second_epoch() -> None:
    images, labels = stream(loader(23, Augmentation(flip="alternating")), 69)
    epochs = [part[order.argsort()] for part, order in zip(images.split(23), labels.split(23), strict=True)]
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])


def test_shifts_reach_both_ends_of_their_range() -> None:
    some = loader(23, num=2000)
    samples = some._draw_epoch(0)
    for shift in (samples.shift_y, samples.shift_x):
        assert shift is not None
        assert shift.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_the_seed_determines_the_batches() -> None:
    first, again, other = (loader(23, seed=seed).batch(0) for seed in (1, 1, 2))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.labels, other.labels)


def test_no_global_random_state_is_touched() -> None:
    before = torch.get_rng_state()
    torch.manual_seed(1)
    first = loader(5).batch(3).images
    torch.manual_seed(2)
    assert torch.equal(loader(5).batch(3).images, first)
    torch.set_rng_state(before)
    loader(5).batch(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_resident_images_are_not_copied() -> None:
    resident = ResidentImages.from_dataset(dataset(), CPU)
    there = DeviceLoader(resident, ChannelStatistics(MEAN, STD), STRONG, Sampling(5, 0))
    for number in range(6):
        batch, expected = there.batch(number), loader(5).batch(number)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)
    assert there.images is resident.images


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
@pytest.mark.parametrize("ensemble_size", [1, 2])
@pytest.mark.parametrize("augmentation", [STRONG, MIXED])
def test_the_batches_of_all_ranks_make_up_the_batch_of_one_process(
    augmentation: Augmentation, num_ranks: int, ensemble_size: int
) -> None:
    sampling = Sampling(10, 0, ensemble_size)
    alone = device_loader(sampling, augmentation)
    shards = [device_loader(sampling, augmentation, DataShard(rank, num_ranks)) for rank in range(num_ranks)]
    for number in range(7):
        whole, parts = alone.batch(number), [shard.batch(number) for shard in shards]
        for network in range(ensemble_size):
            own = [
                (part.images.chunk(ensemble_size)[network], part.labels.chunk(ensemble_size)[network]) for part in parts
            ]
            assert torch.equal(torch.cat([images for images, _ in own]), whole.images.chunk(ensemble_size)[network])
            assert torch.equal(torch.cat([labels for _, labels in own]), whole.labels.chunk(ensemble_size)[network])


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_a_rank_that_holds_a_shard_serves_each_of_its_images_once_an_epoch(num_ranks: int) -> None:
    whole = loader(23, Augmentation())
    images_of = {int(label): image for label, image in zip(whole.batch(0).labels, whole.batch(0).images, strict=True)}
    seen = []
    for rank in range(num_ranks):
        part = device_loader(Sampling(6, 0), Augmentation(), DataShard(rank, num_ranks, holds_shard=True))
        assert len(part) == 23, "an epoch counts the images of all ranks"
        assert len(part.images) == len(range(rank, 23, num_ranks))
        labels = torch.cat([part.batch(number).labels for number in range(40)])
        for epoch in labels[: len(labels) // len(part.images) * len(part.images)].split(len(part.images)):
            assert epoch.sort().values.tolist() == list(range(rank, 23, num_ranks))
        batch = part.batch(3)
        assert all(torch.equal(images_of[int(label)], image) for label, image in zip(*_of(batch), strict=True))
        seen.append(set(labels.tolist()))
    assert set.union(*seen) == set(range(23))


def test_augmentation_of_an_image_does_not_depend_on_the_rank_that_holds_it() -> None:
    flips = Augmentation(flip="alternating")
    whole = device_loader(Sampling(22, 0), flips)
    shown = {int(label): image for label, image in zip(*_of(whole.batch(0)), strict=True)}
    part = device_loader(Sampling(22, 0), flips, DataShard(1, 2, holds_shard=True))
    batch = part.batch(0)
    assert all(
        torch.equal(shown[int(label)], image) for label, image in zip(*_of(batch), strict=True) if int(label) in shown
    )


def _of(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.labels, batch.images
