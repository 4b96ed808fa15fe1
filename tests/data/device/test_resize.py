"""The size of training images over a training: pure arithmetic, and the resampling itself."""

import numpy as np
import pytest
import torch

from timebox.data.dataset import ImageDataset
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages, SmallImages
from timebox.data.device.resize import FULL_SIZE, Resizing, batch_resize, resize_by_matmul, scaled_size

GROWING = Resizing(0.75, 0.6)
CPU = torch.device("cpu")


def test_sizes_of_the_published_schedule() -> None:
    assert GROWING.stages() == [(0.0, 0.75), (pytest.approx(0.3), 0.875), (0.6, 1.0)]
    assert [round(32 * GROWING.scale_at(p)) for p in (0.0, 0.29, 0.31, 0.59, 0.6, 1.0)] == [24, 24, 28, 28, 32, 32]


@pytest.mark.parametrize("resizing", [FULL_SIZE, Resizing(1.0, 0.5), Resizing(0.5, 0.0)])
def test_full_size_from_the_start(resizing: Resizing) -> None:
    assert resizing.stages() == [(0.0, 1.0)]
    assert resizing.scale_at(0.0) == resizing.cost_at(0.0) == 1.0
    assert resizing.steps_in(100) == 100


@pytest.mark.parametrize("start", [0.25, 0.3, 0.5, 0.6, 0.75, 0.99])
@pytest.mark.parametrize("full_at", [0.1, 0.45, 0.9])
def test_the_scale_grows_from_the_start_size_to_full_size(start: float, full_at: float) -> None:
    resizing = Resizing(start, full_at)
    scales = [resizing.scale_at(i / 1000) for i in range(1001)]
    assert scales == sorted(scales)
    assert start <= scales[0] < start + 1 / 8
    assert {8 * scale % 1 for scale in scales} == {0.0}
    assert [scale for i, scale in enumerate(scales) if i / 1000 >= full_at] == [1.0] * sum(
        i / 1000 >= full_at for i in range(1001)
    )


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.45, 0.7, 0.999, 1.0])
def test_cheaper_steps_make_more_steps(progress: float) -> None:
    """Against the sum it stands for: so many steps per slice of the schedule as fit at that slice's cost."""
    slices = 20_000
    width = (1 - progress) / slices
    costs = [GROWING.cost_at(progress + (i + 0.5) * width) for i in range(slices)]
    expected = sum(100 / slices / cost for cost in costs)
    assert GROWING.steps_in(100, progress) == pytest.approx(expected, rel=1e-3)


def test_scaled_size_keeps_a_minimum() -> None:
    assert scaled_size(32, 32, 0.75) == (24, 24)
    assert scaled_size(48, 64, 0.875) == (42, 56)
    assert scaled_size(8, 30, 0.5) == (8, 15)
    assert scaled_size(12, 40, 0.5, min_side=9) == (9, 20)
    assert scaled_size(31, 17, 1.0) == (31, 17)


@pytest.mark.parametrize(("height", "width"), [(24, 18), (28, 21), (8, 24), (40, 30)])
def test_resize_by_matmul_equals_interpolate(height: int, width: int) -> None:
    images = torch.rand(5, 3, 32, 24).to(memory_format=torch.channels_last)
    resized = resize_by_matmul(images, height, width)
    assert resized.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(resized, batch_resize(images, height, width), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(24, 18), (28, 21), (8, 24), (40, 30)])
def test_bytes_are_resized_as_numbers_are_and_rounded(height: int, width: int, channels: int) -> None:
    images = torch.randint(0, 256, (5, channels, 32, 24), dtype=torch.uint8).to(memory_format=torch.channels_last)
    resized = batch_resize(images, height, width)
    assert resized.dtype == torch.uint8
    torch.testing.assert_close(resized.float(), batch_resize(images.float(), height, width), rtol=0, atol=1.01)


def test_the_input_of_a_network_follows_its_scale_and_the_progress() -> None:
    halved = Resizing(0.75, 0.6, input_scale=0.5, min_side=9)
    assert halved.input_size(64, 96) == (32, 48)
    assert halved.input_size(64, 96, 0.0) == (24, 36)
    assert halved.input_size(16, 20) == (9, 10)
    assert Resizing(input_scale=1.25).input_size(32, 32) == (40, 40)


def test_resizing_keeps_features_in_place() -> None:
    images = torch.rand(4, 3, 32, 24).to(memory_format=torch.channels_last)
    assert batch_resize(images, 32, 24) is images
    smaller = batch_resize(images, 24, 18)
    assert smaller.shape == (4, 3, 24, 18)
    assert smaller.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(smaller.mean((2, 3)), images.mean((2, 3)), atol=0.02)
    # Antialiased: a pattern too fine for the smaller size goes grey and makes no coarser one.
    stripes = (torch.arange(32) % 2).float().expand(1, 1, 32, 32)
    assert float(batch_resize(stripes, 16, 16)[..., 2:-2].std()) < 0.05


def test_the_loader_serves_images_at_the_scheduled_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 16, 3), dtype=np.uint8)
    dataset = ImageDataset(images, np.arange(20) % 2, ("a", "b"), tuple(map(str, range(20))))
    half = torch.full((3,), 0.5)

    def loader(resizing: Resizing, cutout_size: int = 4) -> DeviceLoader:
        images, statistics = ResidentImages.from_dataset(dataset, CPU), ChannelStatistics(half, half)
        augmentation = Augmentation(2, "alternating", cutout_size)
        return DeviceLoader(images, statistics, augmentation, Sampling(5, seed=0), resizing)

    growing, whole = loader(GROWING), loader(FULL_SIZE)
    assert growing.size_at(0.0) == (24, 12)
    assert growing.batch(3, 0.4).images.shape == (5, 3, 28, 14)
    assert torch.equal(growing.batch(3, 0.4).labels, whole.batch(3).labels)
    unholed, grown = loader(GROWING, 0).batch(3, 0.4).images, batch_resize(loader(FULL_SIZE, 0).batch(3).images, 28, 14)
    torch.testing.assert_close(unholed, grown, rtol=0, atol=1.01 / 255 / 0.5)
    assert torch.equal(growing.batch(3, 0.7).images, whole.batch(3).images)


def test_the_hole_of_cutout_shrinks_with_the_image() -> None:
    images = np.full((4, 32, 32, 3), 255, np.uint8)
    dataset = ImageDataset(images, np.arange(4) % 2, ("a", "b"), tuple(map(str, range(4))))
    half, growing = torch.full((3,), 0.5), Resizing(0.5, 0.6)
    resident, sampling = ResidentImages.from_dataset(dataset, CPU), Sampling(4, seed=0)
    loader = DeviceLoader(resident, ChannelStatistics(half, half), Augmentation(0, "none", 8), sampling, growing)
    small, large = ((loader.batch(0, progress).images == 0).float().mean((1, 2, 3)) for progress in (0.0, 1.0))
    torch.testing.assert_close(small, large, rtol=0.3, atol=0.01)


def test_large_images_are_held_in_the_size_that_the_network_takes() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3000, 32, 16, 3), dtype=np.uint8)
    dataset = ImageDataset(images, np.arange(3000) % 2, ("a", "b"), tuple(map(str, range(3000))))
    half, resizing = torch.full((3,), 0.5), Resizing(0.75, 0.6, input_scale=0.75, min_side=9)
    resident, sampling = ResidentImages.from_dataset(dataset, CPU), Sampling(500, seed=0)

    def loader(augmentation: Augmentation) -> DeviceLoader:
        return DeviceLoader(resident, ChannelStatistics(half, half), augmentation, sampling, resizing)

    plain = loader(Augmentation())
    assert plain._small_images.size == (24, 12)
    assert (plain.size_at(0.0), plain.size_at(1.0)) == ((18, 9), (24, 12))
    expected = batch_resize(torch.from_numpy(images).permute(0, 3, 1, 2).float(), 24, 12) / 255 / 0.5 - 1
    order = plain._epoch(0).indices[:500]
    torch.testing.assert_close(plain.batch(0).images, expected[order], rtol=0, atol=1.01 / 255 / 0.5)
    samples = loader(Augmentation(crop_padding=15))._epoch(0)
    assert samples.shift_x is not None and int(samples.shift_x.abs().max()) == 11
    assert loader(Augmentation(crop_padding=4)).batch(0).images.shape == (500, 3, 24, 12)


def test_images_are_shrunk_alike_whether_copies_are_kept_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (40, 32, 16, 3), dtype=torch.uint8)
    kept = SmallImages(images, 20, 10)
    monkeypatch.setattr("timebox.data.device.resident.available_memory", lambda: 40 * 20 * 10 * 3)
    anew = SmallImages(images, 20, 10)
    assert kept.size == anew.size == (20, 10)
    for indices in (torch.tensor([3, 39, 3, 0]), torch.tensor([0, 1, 2, 3]), torch.arange(40)):
        (copies, at), (batch, positions) = kept.select(indices), anew.select(indices)
        assert len(copies) == 40
        assert len(batch) == len(indices)
        assert torch.equal(copies[at], batch[positions])


@pytest.mark.parametrize("size", [(32, 16), (40, 20), (32, 8)])
def test_images_that_the_network_does_not_shrink_are_not_copied(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (4, 32, 16, 3), dtype=torch.uint8)
    selected, indices = SmallImages(images, *size).select(torch.tensor([2]))
    assert selected is images
    assert indices.tolist() == [2]
