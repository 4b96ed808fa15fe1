"""The stream of batches: every image once an epoch, and any batch without those before it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from timebox.data.dataset import ImageDataset
from timebox.data.device.augment import (
    alternating_flips,
    batch_cutout,
    batch_mixup,
    batch_normalize,
    batch_uniform,
    batch_views,
    epoch_order,
)
from timebox.data.device.loader import Augmentation, Batch, DeviceLoader, ResidentImages, Share

CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
STRONG = Augmentation(crop_padding=3, flip="alternating", cutout_size=4)
BLENDED = Augmentation(crop_padding=1, flip="alternating", mixup=0.6)


def dataset(num: int = 23, side: int = 8) -> ImageDataset:
    """Every image's label is its own index, so that a batch tells which images it holds."""
    images = np.random.default_rng(0).integers(0, 256, (num, side, side, 3), dtype=np.uint8)
    names = tuple(str(i) for i in range(num))
    return ImageDataset(images, np.arange(num), names, names)


def loader(batch_size: int, augmentation: Augmentation = STRONG, num: int = 23, seed: int = 0) -> DeviceLoader:
    return DeviceLoader(dataset(num), batch_size, MEAN, STD, augmentation, seed, CPU)


def stream(loader: DeviceLoader, num_samples: int) -> tuple[Tensor, Tensor]:
    """Images and labels of the first samples, whatever the batch size."""
    batches = [loader.batch(number) for number in range(-(-num_samples // loader.batch_size))]
    images, labels = torch.cat([b.images for b in batches]), torch.cat([b.labels for b in batches])
    return images[:num_samples], labels[:num_samples]


def test_a_batch() -> None:
    batch = loader(5).batch(0)
    assert batch.images.shape == (5, 3, 8, 8)
    assert batch.images.dtype == torch.float32
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.shape == (5,)
    assert batch.labels.dtype == torch.int64
    assert loader(5).images.dtype == torch.uint8
    assert len(loader(5)) == 23


@pytest.mark.parametrize("batch_size", [5, 23, 60])
def test_networks_side_by_side_see_each_image_once_an_epoch_in_orders_of_their_own(batch_size: int) -> None:
    alone = loader(batch_size)
    three = DeviceLoader(dataset(), batch_size, MEAN, STD, STRONG, 0, CPU, num_networks=3)
    batches = [three.batch(number) for number in range(23)]
    assert all(batch.images.shape == (3 * batch_size, 3, 8, 8) for batch in batches)
    for number, batch in enumerate(batches):
        assert torch.equal(batch.images[:batch_size], alone.batch(number).images), "the first is as if it were alone"
    streams = [torch.cat([batch.labels[k * batch_size :][:batch_size] for batch in batches]) for k in range(3)]
    for labels in streams:
        for epoch in labels[: len(labels) // 23 * 23].split(23):
            assert torch.equal(epoch.sort().values, torch.arange(23))
    assert not torch.equal(streams[0], streams[1])
    assert not torch.equal(streams[1], streams[2])


def test_what_one_network_sees_mirrored_its_neighbour_sees_as_it_is() -> None:
    pair = DeviceLoader(dataset(), 23, MEAN, STD, Augmentation(flip="alternating"), 0, CPU, num_networks=2)
    for number in range(4):
        batch = pair.batch(number)
        parts = zip(batch.images.split(23), batch.labels.split(23), strict=True)
        first, second = (images[labels.argsort()] for images, labels in parts)
        assert torch.equal(first, second.flip(3))


@pytest.mark.parametrize("batch_size", [1, 5, 23, 24, 60])
def test_each_image_comes_once_per_epoch(batch_size: int) -> None:
    _, labels = stream(loader(batch_size), 23 * 4)
    for epoch in labels.split(23):
        assert torch.equal(epoch.sort().values, torch.arange(23))
    assert not torch.equal(labels[:23], labels[23:46])


def test_every_batch_has_the_same_size() -> None:
    for batch_size in (5, 60):
        some = loader(batch_size)
        assert {len(some.batch(number).labels) for number in range(10)} == {batch_size}


def test_any_batch_can_be_made_without_those_before_it() -> None:
    forwards = loader(5)
    batches = [forwards.batch(number) for number in range(12)]
    for number in (11, 3, 7, 0, 3):
        fresh = loader(5).batch(number)
        again = forwards.batch(number)
        for other in (fresh, again):
            assert torch.equal(other.labels, batches[number].labels)
            assert torch.equal(other.images, batches[number].images)


@pytest.mark.parametrize("flip", ["none", "random", "alternating"])
def test_an_image_looks_the_same_whatever_the_batch_size(flip: str) -> None:
    augmentation = Augmentation(crop_padding=3, flip=flip, cutout_size=4)
    images, labels = stream(loader(23, augmentation), 69)
    for batch_size in (1, 4, 50):
        other_images, other_labels = stream(loader(batch_size, augmentation), 69)
        assert torch.equal(other_labels, labels)
        assert torch.equal(other_images, images)


def test_a_batch_is_its_parts_put_together() -> None:
    data, seed = dataset(), 9
    batch = loader(23, seed=seed).batch(2)
    indices = epoch_order(seed, 2, 23, CPU)
    epochs = torch.full_like(indices, 2)

    def draw(stream: int, num_values: int) -> Tensor:
        return (batch_uniform(seed, stream, epochs, indices) * num_values).long()

    flipped = alternating_flips(seed, epochs, indices)
    images = batch_views(torch.from_numpy(data.images), indices, draw(2, 7) - 3, draw(3, 7) - 3, flipped)
    expected = batch_cutout(batch_normalize(images, MEAN, STD), draw(4, 8), draw(5, 8), 4)
    assert torch.equal(batch.labels, indices)
    assert torch.equal(batch.images, expected)


def test_a_blended_batch_is_its_parts_put_together() -> None:
    batch = loader(23, BLENDED, seed=9).batch(2)
    images, labels = stream(loader(24, Augmentation(crop_padding=1, flip="alternating"), seed=9), 3 * 23 + 1)
    indices, epochs = epoch_order(9, 2, 23, CPU), torch.full((23,), 2)
    is_blended, share = (batch_uniform(9, stream, epochs, indices) for stream in (6, 7))
    blend = torch.where(is_blended < 0.6, share / 2, 0.0).float()
    unblended, targets = images[46:].permute(0, 2, 3, 1), torch.eye(23)[labels[46:]]
    assert torch.equal(batch.images.permute(0, 2, 3, 1), batch_mixup(unblended[:-1], unblended[1:], blend))
    assert torch.equal(batch.labels, batch_mixup(targets[:-1], targets[1:], blend))
    assert 8 <= (blend > 0).sum() <= 20
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_images_are_blended_up_to_a_progress_and_their_labels_keep_their_form() -> None:
    ending = loader(23, replace(BLENDED, mixup_until=0.8))
    as_it_is = loader(23, replace(BLENDED, mixup=0.0)).batch(2)
    assert torch.equal(ending.batch(2, 0.8).images, loader(23, BLENDED).batch(2, 0.8).images)
    unblended = ending.batch(2, 0.81)
    assert torch.equal(unblended.images, as_it_is.images)
    assert torch.equal(unblended.labels, torch.eye(23)[as_it_is.labels])


@pytest.mark.parametrize("num_networks", [1, 3])
def test_what_an_image_is_blended_with_depends_on_no_batch(num_networks: int) -> None:
    def served(batch_size: int) -> list[tuple[Tensor, Tensor]]:
        some = DeviceLoader(dataset(), batch_size, MEAN, STD, BLENDED, 0, CPU, num_networks=num_networks)
        batches = [some.batch(number) for number in range(60 // batch_size)]
        parts = [(batch.images.split(batch_size), batch.labels.split(batch_size)) for batch in batches]
        return [tuple(torch.cat([part[i][k] for part in parts]) for i in (0, 1)) for k in range(num_networks)]  # type: ignore[misc]

    for (images, targets), (other_images, other_targets) in zip(served(60), served(4), strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(targets, other_targets)


@pytest.mark.parametrize("mixup", [0.3, 1.0])
def test_as_many_images_are_blended_as_asked_for_with_up_to_half_of_another(mixup: float) -> None:
    targets = loader(2000, Augmentation(mixup=mixup), num=2000).batch(0).labels
    own, other = targets.topk(2).values.T
    assert torch.allclose(own + other, torch.ones(2000), atol=1e-6)
    assert (other > 0).float().mean() == pytest.approx(mixup, abs=0.04)
    assert other[other > 0].mean() == pytest.approx(0.25, abs=0.02)


def test_without_augmentation_the_images_are_only_normalised() -> None:
    data = dataset()
    batch = loader(23, Augmentation()).batch(0)
    expected = batch_normalize(torch.from_numpy(data.images)[batch.labels], MEAN, STD)
    assert torch.equal(batch.images, expected)


def test_alternating_shows_each_image_mirrored_every_second_epoch() -> None:
    images, labels = stream(loader(23, Augmentation(flip="alternating")), 69)
    epochs = [part[order.argsort()] for part, order in zip(images.split(23), labels.split(23), strict=True)]
    assert torch.equal(epochs[1], epochs[0].flip(3))
    assert torch.equal(epochs[2], epochs[0])


def test_shifts_reach_both_ends_of_their_range() -> None:
    some = loader(23, num=2000)
    samples = some._drawn(epoch=0)
    for drawn in (samples.chance["shift_y"], samples.chance["shift_x"]):
        assert drawn.unique().tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_the_seed_decides() -> None:
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


def test_images_that_are_on_the_device_are_served_alike_and_not_copied() -> None:
    resident = ResidentImages.of(dataset(), CPU)
    there = DeviceLoader(resident, 5, MEAN, STD, STRONG, 0, CPU)
    for number in range(6):
        batch, expected = there.batch(number), loader(5).batch(number)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.labels, expected.labels)
    assert there.images is resident.images


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("num_networks", [1, 2])
@pytest.mark.parametrize("augmentation", [STRONG, BLENDED])
def test_the_shares_of_several_processes_make_up_the_batch_of_one(
    augmentation: Augmentation, size: int, num_networks: int
) -> None:
    alone = DeviceLoader(dataset(), 10, MEAN, STD, augmentation, 0, CPU, num_networks=num_networks)
    shares = [
        DeviceLoader(dataset(), 10, MEAN, STD, augmentation, 0, CPU, num_networks=num_networks, share=Share(rank, size))
        for rank in range(size)
    ]
    for number in range(7):
        whole, parts = alone.batch(number), [share.batch(number) for share in shares]
        for network in range(num_networks):
            own = [
                (part.images.chunk(num_networks)[network], part.labels.chunk(num_networks)[network]) for part in parts
            ]
            assert torch.equal(torch.cat([images for images, _ in own]), whole.images.chunk(num_networks)[network])
            assert torch.equal(torch.cat([labels for _, labels in own]), whole.labels.chunk(num_networks)[network])


@pytest.mark.parametrize("size", [2, 3])
def test_processes_that_hold_a_part_each_see_each_of_its_images_once_an_epoch(size: int) -> None:
    whole = loader(23, Augmentation())
    images_of = {int(label): image for label, image in zip(whole.batch(0).labels, whole.batch(0).images, strict=True)}
    seen = []
    for rank in range(size):
        part = DeviceLoader(dataset(), 6, MEAN, STD, Augmentation(), 0, CPU, share=Share(rank, size, holds_part=True))
        assert len(part) == 23, "the epochs are those of all images"
        assert len(part.images) == len(range(rank, 23, size))
        labels = torch.cat([part.batch(number).labels for number in range(40)])
        for epoch in labels[: len(labels) // len(part.images) * len(part.images)].split(len(part.images)):
            assert epoch.sort().values.tolist() == list(range(rank, 23, size))
        batch = part.batch(3)
        assert all(torch.equal(images_of[int(label)], image) for label, image in zip(*_of(batch), strict=True))
        seen.append(set(labels.tolist()))
    assert set.union(*seen) == set(range(23))


def test_chance_goes_by_the_image_whoever_holds_it() -> None:
    flips = Augmentation(flip="alternating")
    whole = DeviceLoader(dataset(), 22, MEAN, STD, flips, 0, CPU)
    shown = {int(label): image for label, image in zip(*_of(whole.batch(0)), strict=True)}
    part = DeviceLoader(dataset(), 22, MEAN, STD, flips, 0, CPU, share=Share(1, 2, holds_part=True))
    batch = part.batch(0)
    assert all(
        torch.equal(shown[int(label)], image) for label, image in zip(*_of(batch), strict=True) if int(label) in shown
    )


def _of(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.labels, batch.images
