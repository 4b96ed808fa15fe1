"""The classifier on patches: right on easy data, at chance on noise, and truly leaving one out."""

import numpy as np
import pytest
import torch

from timebox.data.dataset import ImageDataset
from timebox.planning.forecast import patch_classifier
from timebox.planning.forecast.patch_classifier import measure_patch_accuracy


def dataset(images: np.ndarray, labels: np.ndarray, num_classes: int) -> ImageDataset:
    names = tuple(f"class {number}" for number in range(num_classes))
    return ImageDataset(images, labels.astype(np.int64), names, tuple(map(str, range(len(images)))))


def stripes(num_images: int, side: int = 16, channels: int = 3, noise: float = 20) -> ImageDataset:
    """Noisy vertical and horizontal stripes of random phase: the mean of the pixels tells nothing."""
    rng = np.random.default_rng(0)
    labels, phases = rng.integers(0, 2, num_images), rng.uniform(0, 2 * np.pi, num_images)
    wave = np.sin(np.arange(side)[None] * 1.5 + phases[:, None])
    rows = np.where(labels[:, None, None], wave[:, :, None], wave[:, None, :])
    images = 128 + 60 * rows[..., None] + rng.normal(0, noise, (num_images, side, side, channels))
    return dataset(images.clip(0, 255).astype(np.uint8), labels, 2)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (16, 3), (40, 4)])
def test_patterns_are_recognised_in_images_of_any_form(side: int, channels: int) -> None:
    assert measure_patch_accuracy(stripes(300, side, channels)).many > 0.95


def test_many_images_tell_more_than_few() -> None:
    patches = measure_patch_accuracy(stripes(2000, noise=150))
    assert patches.many > patches.few + 0.02
    few = measure_patch_accuracy(stripes(patch_classifier.FEW_IMAGES))
    assert few.many == few.few


def test_labels_by_chance_come_out_at_chance() -> None:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (600, 12, 12, 3), dtype=np.uint8)
    patches = measure_patch_accuracy(dataset(images, rng.integers(0, 4, 600), 4))
    assert patches.many == pytest.approx(0.25, abs=0.06)


def test_images_without_contrast_are_no_error() -> None:
    images = np.full((40, 10, 10, 3), 7, dtype=np.uint8)
    assert 0 <= measure_patch_accuracy(dataset(images, np.arange(40) % 2, 2)).many <= 1


def test_one_class_without_images_and_a_handful_of_images() -> None:
    data = stripes(12)
    assert 0 <= measure_patch_accuracy(dataset(data.images, data.labels, 3)).many <= 1


def test_the_seed_decides_and_torch_is_left_as_it_was() -> None:
    before = torch.get_rng_state()
    first, second = (measure_patch_accuracy(stripes(200), seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_a_time_limit_ends_it_after_the_first_images(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr(patch_classifier, "now", lambda: 0.1 * next(ticks))
    data = stripes(1000)  # eight batches of a tenth of a second
    with pytest.raises(patch_classifier.TooSlowError):
        measure_patch_accuracy(data, limit_seconds=1.5)
    assert measure_patch_accuracy(data, limit_seconds=1.7).many > 0.95


def test_predictions_leave_the_image_out() -> None:
    """The closed form equals a regression on all other images, up to the mean, which all of them share."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 12, generator=generator, dtype=torch.float64)
    features -= features.mean(0)
    targets = torch.randn(40, 2, generator=generator, dtype=torch.float64)
    targets -= targets.mean(0)
    strength = patch_classifier.RIDGES[-1]
    predicted = patch_classifier._leave_one_out(features, targets)[-1]
    for image in (0, 17, 39):
        others = torch.arange(40) != image
        centred = features[others] - features[others].mean(0)
        gram = centred.T @ centred + strength * 40 * torch.eye(12, dtype=torch.float64)
        weights = torch.linalg.solve(gram, centred.T @ (targets[others] - targets[others].mean(0)))
        refitted = (features[image] - features[others].mean(0)) @ weights + targets[others].mean(0)
        assert torch.allclose(predicted[image], refitted, atol=1e-6)
