"""Vectorised augmentation equals a loop over images; random numbers depend on (seed, epoch, image) only."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from timebox.data import channel_statistics
from timebox.data.device import augment
from timebox.data.device.augment import (
    alternating_flips,
    batch_crop_and_flip,
    batch_cutout,
    batch_hash,
    batch_mixup,
    batch_normalize,
    batch_statistics,
    batch_uniform,
    epoch_order,
    random_flips,
)

CPU = torch.device("cpu")
SHAPES = [(6, 8, 8, 1), (7, 9, 12, 3), (5, 16, 11, 4)]


def pixels(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def whole(num: int, low: int, high: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, num))


def same(result: Tensor, expected: NDArray[np.generic]) -> bool:
    return bool(np.array_equal(result.numpy(), expected))


def hashes(num: int = 4096, epoch: int = 0, seed: int = 0, stream: int = 0) -> Tensor:
    indices = torch.arange(num)
    return batch_hash(seed, stream, torch.full_like(indices, epoch), indices)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [1, 4, 7])
def test_crop_equals_reflection_padding_and_slicing(shape: tuple[int, int, int, int], padding: int) -> None:
    images = pixels(shape)
    num, height, width, _ = shape
    shift_y, shift_x = whole(num, -padding, padding + 1, 1), whole(num, -padding, padding + 1, 2)
    expected = np.empty_like(images)
    for i, (image, dy, dx) in enumerate(zip(images, shift_y.tolist(), shift_x.tolist(), strict=True)):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        expected[i] = padded[padding + dy : padding + dy + height, padding + dx : padding + dx + width]
    cropped = batch_crop_and_flip(torch.from_numpy(images), torch.arange(num), shift_y, shift_x)
    assert cropped.dtype == torch.uint8
    assert cropped.is_contiguous()
    assert same(cropped, expected)


def test_the_largest_shift_reaches_the_last_reflected_pixel() -> None:
    images = pixels((2, 8, 8, 3))
    shift = torch.tensor([7, -7])
    padded = np.pad(images, ((0, 0), (7, 7), (7, 7), (0, 0)), mode="reflect")
    cropped = batch_crop_and_flip(torch.from_numpy(images), torch.arange(2), shift, shift)
    assert same(cropped[0], padded[0, 14:, 14:])
    assert same(cropped[1], padded[1, :8, :8])


def test_no_shift_changes_nothing() -> None:
    images = torch.from_numpy(pixels((3, 8, 8, 3)))
    none, unmoved = torch.zeros(3, dtype=torch.int64), torch.arange(3)
    assert torch.equal(batch_crop_and_flip(images, unmoved, none, none), images)
    assert torch.equal(batch_crop_and_flip(images, unmoved), images)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_marked_images_are_flipped_left_to_right(shape: tuple[int, int, int, int]) -> None:
    images = pixels(shape)
    flipped = whole(shape[0], 0, 2).bool()
    expected = np.stack([image[:, ::-1] if f else image for image, f in zip(images, flipped.tolist(), strict=True)])
    result = batch_crop_and_flip(torch.from_numpy(images), torch.arange(shape[0]), is_flipped=flipped)
    assert result.dtype == torch.uint8
    assert same(result, expected)


def test_selected_images_are_shifted_before_they_are_flipped() -> None:
    images, indices = torch.from_numpy(pixels((5, 8, 9, 3))), torch.tensor([4, 0, 0, 2])
    shift_y, shift_x = torch.tensor([1, -2, 0, 3]), torch.tensor([0, 2, -1, 4])
    flipped = torch.tensor([True, False, True, True])
    shifted = batch_crop_and_flip(images[indices], torch.arange(4), shift_y, shift_x)
    expected = torch.where(flipped[:, None, None, None], shifted.flip(2), shifted)
    assert torch.equal(batch_crop_and_flip(images, indices, shift_y, shift_x, flipped), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shifted", ["y", "x", "both", "neither"])
@pytest.mark.parametrize("is_flipping", [False, True])
def test_rows_of_pixels_are_gathered_as_single_pixels_are(
    shape: tuple[int, int, int, int], shifted: str, is_flipping: bool
) -> None:
    images, indices = torch.from_numpy(pixels(shape)), whole(50, 0, shape[0], 3)
    shift_y = whole(50, -5, 6, 1) if shifted in ("y", "both") else None
    shift_x = whole(50, -5, 6, 2) if shifted in ("x", "both") else None
    flipped = whole(50, 0, 2).bool() if is_flipping else None
    by_rows = augment._gather_rows(images, indices, shift_y, shift_x, flipped)
    assert torch.equal(by_rows, augment._gather_pixels(images, indices, shift_y, shift_x, flipped))
    assert by_rows.is_contiguous()


@pytest.mark.parametrize("size", [0, 1, 2, 5, 6, 40])
def test_cutout_zeroes_a_square_clipped_at_the_border(size: int) -> None:
    num, height, width = 40, 12, 9
    images = np.random.default_rng(0).standard_normal((num, 3, height, width)).astype(np.float32)
    centre_y, centre_x = whole(num, 0, height, 1), whole(num, 0, width, 2)
    expected = images.copy()
    for image, y, x in zip(expected, centre_y.tolist(), centre_x.tolist(), strict=True):
        top, left = y - size // 2, x - size // 2
        image[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
    original = torch.from_numpy(images).to(memory_format=torch.channels_last)
    result = batch_cutout(original, centre_y, centre_x, size)
    assert same(result, expected)
    assert same(original, images), "the input is not modified"
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_mixup_of_images_and_of_targets_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    images, others = (rng.standard_normal((4, 3, 5, 2)).astype(np.float32) for _ in range(2))
    weights = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
    result = batch_mixup(*(torch.from_numpy(values) for values in (images, others, weights))).numpy()
    for image, other, weight, mixed in zip(images, others, weights, result, strict=True):
        np.testing.assert_allclose(mixed, (1 - weight) * image + weight * other, atol=1e-6)
    assert np.array_equal(result[0], images[0])
    targets = batch_mixup(torch.eye(4), torch.eye(4).roll(1, 0), torch.from_numpy(weights))
    assert targets[1].tolist() == [0.25, 0.75, 0, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_normalize_equals_a_loop_over_images(shape: tuple[int, int, int, int]) -> None:
    images = pixels(shape)
    rng = np.random.default_rng(3)
    mean, std = rng.uniform(0.2, 0.8, shape[3]), rng.uniform(0.1, 0.4, shape[3])
    expected = np.stack([((image / 255 - mean) / std).transpose(2, 0, 1) for image in images])
    result = batch_normalize(torch.from_numpy(images), torch.tensor(mean).float(), torch.tensor(std).float())
    assert result.dtype == torch.float32
    assert result.shape == (shape[0], shape[3], shape[1], shape[2])
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-5)


def test_hashes_are_distinct_and_unsigned_32_bit() -> None:
    for seed in (0, 1, 2**31, 2**40 + 3):
        values = hashes(seed=seed)
        assert values.dtype == torch.int64
        assert 0 <= int(values.min()) <= int(values.max()) < 2**32
        assert len(values.unique()) == len(values)


def test_the_hash_is_lowbias32() -> None:
    # lowbias32 in plain Python integers.
    def lowbias32(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
        return x ^ (x >> 16)

    seed, stream, epoch = 12345, 3, 17
    start = lowbias32((seed * 0x9E3779B1 + stream * 0x85EBCA77) & 0xFFFFFFFF)
    expected = [lowbias32(lowbias32(start ^ epoch) ^ index) for index in range(64)]
    assert hashes(64, epoch, seed, stream).tolist() == expected


@pytest.mark.parametrize("key", ["index", "epoch", "seed", "stream"])
def test_random_numbers_are_uniform_along_every_key(key: str) -> None:
    num, bins = 3200, 64
    steps = torch.arange(num)
    zero = torch.zeros_like(steps)
    if key == "index":
        values = batch_uniform(0, 1, zero, steps)
    elif key == "epoch":
        values = batch_uniform(0, 1, steps, zero)
    else:
        one = torch.zeros(1, dtype=torch.int64)
        pairs = [(i, 1) if key == "seed" else (0, i) for i in range(num)]
        values = torch.cat([batch_uniform(seed, stream, one, one) for seed, stream in pairs])
    assert values.dtype == torch.float64
    assert float(values.min()) >= 0
    assert float(values.max()) < 1
    counts = torch.histc(values, bins, 0, 1)
    chi_square = float(((counts - num / bins) ** 2 / (num / bins)).sum())
    # 63 degrees of freedom: mean 63, standard deviation 11.
    assert 25 < chi_square < 120


def test_streams_seeds_and_epochs_are_uncorrelated() -> None:
    num = 8192
    indices = torch.arange(num)
    epochs = torch.zeros_like(indices)
    draws = [batch_uniform(0, stream, epochs, indices) for stream in range(6)]
    draws += [batch_uniform(1, 0, epochs, indices), batch_uniform(0, 0, epochs + 1, indices)]
    correlations = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert float(correlations.abs().max()) < 5 / num**0.5
    bits = torch.stack([batch_hash(0, 1, epochs + epoch, indices) & 1 for epoch in range(8)]).double()
    assert bits.mean(1).sub(0.5).abs().max() < 5 * 0.5 / num**0.5
    assert (torch.corrcoef(bits) - torch.eye(8)).abs().max() < 5 / num**0.5


def test_random_numbers_depend_neither_on_order_nor_on_batch_size() -> None:
    indices, epochs = whole(500, 0, 1000, 1), whole(500, 0, 9, 2)
    every = batch_uniform(7, 2, epochs, indices)
    order = torch.from_numpy(np.random.default_rng(3).permutation(500))
    assert torch.equal(batch_uniform(7, 2, epochs[order], indices[order]), every[order])
    parts = zip(epochs.split(33), indices.split(33), strict=True)
    assert torch.equal(torch.cat([batch_uniform(7, 2, e, i) for e, i in parts]), every)


@pytest.mark.parametrize("flips", [random_flips, alternating_flips])
def test_half_of_the_images_are_flipped(flips: Callable[[int, Tensor, Tensor], Tensor]) -> None:
    indices = torch.arange(10_000)
    for epoch in range(4):
        flipped = flips(5, torch.full_like(indices, epoch), indices)
        assert flipped.dtype == torch.bool
        assert abs(float(flipped.double().mean()) - 0.5) < 0.025


def test_random_flips_are_drawn_anew_each_epoch() -> None:
    indices = torch.arange(10_000)
    first, second = (random_flips(5, torch.full_like(indices, epoch), indices) for epoch in (0, 1))
    assert abs(float((first == second).double().mean()) - 0.5) < 0.025


def test_alternating_flips_alternate() -> None:
    indices = torch.arange(1000)
    shown = torch.stack([alternating_flips(5, torch.full_like(indices, epoch), indices) for epoch in range(6)])
    assert (shown[1:] == ~shown[:-1]).all()
    assert shown[0].any()
    assert not shown[0].all()


def test_each_epoch_has_its_own_permutation() -> None:
    orders = {(seed, epoch): epoch_order(seed, epoch, 997, CPU) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    for order in orders.values():
        assert order.dtype == torch.int64
        assert torch.equal(order.sort().values, torch.arange(997))
    assert len({tuple(order.tolist()) for order in orders.values()}) == 9
    assert torch.equal(epoch_order(2, 1, 997, CPU), orders[2, 1])


def test_every_position_in_an_epoch_is_equally_likely_for_every_image() -> None:
    num, epochs = 20, 2000
    counts = torch.zeros(num, num)
    for epoch in range(epochs):
        counts[torch.arange(num), epoch_order(0, epoch, num, CPU)] += 1
    expected = epochs / num
    # 19 x 19 degrees of freedom: mean 361, standard deviation 27.
    assert 250 < float(((counts - expected) ** 2 / expected).sum()) < 480


def test_no_global_random_state_is_touched() -> None:
    before = torch.get_rng_state()
    indices = torch.arange(10)
    epoch_order(0, 0, 10, CPU)
    random_flips(0, indices, indices)
    alternating_flips(0, indices, indices)
    batch_uniform(0, 2, indices, indices)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shape", [*SHAPES, (5000, 3, 2, 3)])
def test_batch_statistics_equal_channel_statistics(shape: tuple[int, ...]) -> None:
    images = pixels(shape)
    images[..., 0] = 7
    expected = [torch.tensor(values) for values in channel_statistics(images)]
    for result, reference in zip(batch_statistics(torch.from_numpy(images)), expected, strict=True):
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, reference, rtol=1e-6, atol=1e-7)
