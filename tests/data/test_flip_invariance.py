"""The horizontal flip test accepts classes that a flip keeps, and rejects others."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from timebox.data import ImageDataset, load_data
from timebox.data.flip_invariance import FlipInvariance, measure_flip_invariance

SIDE = 12


def labelled(images: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> ImageDataset:
    names = tuple(f"class {i}" for i in range(num_classes))
    pixels = images.clip(0, 255).astype(np.uint8)
    return ImageDataset(pixels, labels, names, tuple(str(i) for i in range(len(images))))


def patches(which: str, num: int = 300, channels: int = 3) -> ImageDataset:
    """Noise with a bright band whose position is the class: a flip keeps ``rows`` and swaps ``columns``."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, num)
    images = rng.normal(100, 15, (num, SIDE, SIDE, channels))
    for image, label in zip(images, labels, strict=True):
        band = slice(0, SIDE // 3) if label else slice(-SIDE // 3, None)
        image[(band, slice(None)) if which == "rows" else (slice(None), band)] += 80
    return labelled(images, labels, 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_flip_keeps_the_label_of_symmetric_classes(channels: int) -> None:
    result = measure_flip_invariance(patches("rows", channels=channels))
    assert result.accuracy > 0.95
    assert result.flipped_accuracy > 0.95
    assert result.keeps_labels


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flip_changes_the_label_of_left_and_right(channels: int) -> None:
    result = measure_flip_invariance(patches("columns", channels=channels))
    assert result.accuracy > 0.95
    assert result.flipped_accuracy < 0.05
    assert not result.keeps_labels


def test_a_flip_changes_the_label_of_digits() -> None:
    result = measure_flip_invariance(load_data("digits").splits.train)
    assert result.accuracy > 0.95
    assert result.flipped_accuracy < 0.8
    assert result.num_images == 1024
    assert not result.keeps_labels


def test_random_labels_are_no_evidence_against_flipping() -> None:
    rng = np.random.default_rng(1)
    assert measure_flip_invariance(
        labelled(rng.uniform(0, 255, (400, 8, 8, 3)), rng.integers(0, 4, 400), 4)
    ).keeps_labels


def test_an_image_is_never_its_own_neighbour() -> None:
    # Each image is symmetric, so flipping returns the same image; as its own neighbour it would always be right.
    rng = np.random.default_rng(2)
    half = rng.uniform(0, 255, (200, 8, 4, 3))
    result = measure_flip_invariance(labelled(np.concatenate([half, half[:, :, ::-1]], 2), rng.integers(0, 2, 200), 2))
    assert result.accuracy == result.flipped_accuracy
    assert result.accuracy < 0.7


def test_three_images_are_enough() -> None:
    result = measure_flip_invariance(patches("rows", num=3))
    assert result.num_images == 3


def test_three_standard_errors_are_tolerated() -> None:
    # The difference's standard error is 0.0283 for two accuracies of about 0.8 over 400 images.
    assert FlipInvariance(0.80, 0.72, 400).keeps_labels
    assert not FlipInvariance(0.80, 0.70, 400).keeps_labels
    assert FlipInvariance(1.0, 1.0, 10).keeps_labels
    assert FlipInvariance(0.5, 0.9, 10).keeps_labels


def test_repeatable_and_without_global_random_state() -> None:
    data, before = patches("rows"), torch.get_rng_state()
    assert measure_flip_invariance(data, seed=3) == measure_flip_invariance(data, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
