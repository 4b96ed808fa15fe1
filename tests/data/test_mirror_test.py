"""Mirroring is allowed where labels live through it, and only there."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from timebox.data import ImageDataset, load_data
from timebox.data.mirror_test import MirrorTest, mirror_test

SIDE = 12


def labelled(images: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> ImageDataset:
    names = tuple(f"class {i}" for i in range(num_classes))
    pixels = images.clip(0, 255).astype(np.uint8)
    return ImageDataset(pixels, labels, names, tuple(str(i) for i in range(len(images))))


def patches(which: str, num: int = 300, channels: int = 3) -> ImageDataset:
    """Noise with a bright band whose place is the class: ``rows`` survive mirroring, ``columns`` do not."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, num)
    images = rng.normal(100, 15, (num, SIDE, SIDE, channels))
    for image, label in zip(images, labels, strict=True):
        band = slice(0, SIDE // 3) if label else slice(-SIDE // 3, None)
        image[(band, slice(None)) if which == "rows" else (slice(None), band)] += 80
    return labelled(images, labels, 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_symmetric_classes_may_be_mirrored(channels: int) -> None:
    result = mirror_test(patches("rows", channels=channels))
    assert result.accuracy > 0.95
    assert result.mirrored_accuracy > 0.95
    assert result.allowed


@pytest.mark.parametrize("channels", [1, 3])
def test_left_and_right_may_not(channels: int) -> None:
    result = mirror_test(patches("columns", channels=channels))
    assert result.accuracy > 0.95
    assert result.mirrored_accuracy < 0.05
    assert not result.allowed


def test_digits_may_not() -> None:
    result = mirror_test(load_data("digits").splits.train)
    assert result.accuracy > 0.95
    assert result.mirrored_accuracy < 0.8
    assert result.num_images == 1024
    assert not result.allowed


def test_labels_without_meaning_give_no_reason_to_refuse() -> None:
    rng = np.random.default_rng(1)
    assert mirror_test(labelled(rng.uniform(0, 255, (400, 8, 8, 3)), rng.integers(0, 4, 400), 4)).allowed


def test_an_images_own_copy_never_counts() -> None:
    # Each image is symmetric, so its mirror image is itself; were it its own neighbour, both would be perfect.
    rng = np.random.default_rng(2)
    half = rng.uniform(0, 255, (200, 8, 4, 3))
    result = mirror_test(labelled(np.concatenate([half, half[:, :, ::-1]], 2), rng.integers(0, 2, 200), 2))
    assert result.accuracy == result.mirrored_accuracy
    assert result.accuracy < 0.7


def test_a_handful_of_images_is_enough_to_run_it() -> None:
    result = mirror_test(patches("rows", num=3))
    assert result.num_images == 3


def test_allowed_within_three_standard_errors() -> None:
    # The difference's standard error is 0.0283 for two accuracies of about 0.8 over 400 images.
    assert MirrorTest(0.80, 0.72, 400).allowed
    assert not MirrorTest(0.80, 0.70, 400).allowed
    assert MirrorTest(1.0, 1.0, 10).allowed
    assert MirrorTest(0.5, 0.9, 10).allowed


def test_repeatable_and_without_global_random_state() -> None:
    data, before = patches("rows"), torch.get_rng_state()
    assert mirror_test(data, seed=3) == mirror_test(data, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
