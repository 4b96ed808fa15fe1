"""Drawings on a plain ground, and channels that hold nothing: trainings of airbench's network learn from them too.

Most patches of such images are equal, and max pooling leaves channels without any variance. With the published epsilon
of 1e-12 in batch norm the weights overflow within three steps, in any precision.
"""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from timebox.builders import build_augmentation, build_model, build_resizing, init_whitening_
from timebox.data import ImageDataset, channel_statistics
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim.loss import Loss
from timebox.planning.auto import AUTO_BASE, LR_PER_IMAGE
from timebox.runtime.precision import Precision
from timebox.training.schedule import lr_and_momentum_at
from timebox.training.state import TrainingState
from timebox.training.step import training_step
from tiny import CPU

NUM_IMAGES, SIDE, BATCH_SIZE, NUM_STEPS = 256, 24, 64, 30
# Without the processor's own bf16 a step takes two seconds. Weights that overflow do so within three steps.
NUM_BF16_STEPS = 6
WHITE, RED = (255, 255, 255), (255, 0, 0)
# Wide enough for all whitening filters to begin as channels of their own.
RECIPE = AUTO_BASE.replace(
    width=32, batch_size=BATCH_SIZE, max_lr=BATCH_SIZE * LR_PER_IMAGE, crop_padding=1, logit_scale=0.02
)


def strokes() -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Masks of circles, squares and diagonals of a pixel's width, (N, SIDE, SIDE), and which of the three each is."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, NUM_IMAGES)
    rows, columns = np.mgrid[:SIDE, :SIDE]

    def stroke(kind: int) -> NDArray[np.bool_]:
        y, x, radius = rows - rng.integers(10, 14), columns - rng.integers(10, 14), rng.integers(4, 8)
        if kind == 0:
            return np.abs(np.hypot(y, x) - radius) < 1
        if kind == 1:
            return np.maximum(np.abs(y), np.abs(x)) == radius
        return (np.abs(y - x) < 1) & (np.abs(y) <= radius)

    return np.stack([stroke(kind) for kind in labels]), labels


def painted(ink: tuple[int, ...], ground: tuple[int, ...]) -> ImageDataset:
    masks, labels = strokes()
    images = np.where(masks[..., None], np.uint8(ink), np.uint8(ground)).astype(np.uint8)
    return ImageDataset(images, labels, ("circle", "square", "line"), tuple(map(str, range(NUM_IMAGES))))


def opaque_photos() -> ImageDataset:
    """Noise with brighter strokes, and an alpha channel that is 255 everywhere."""
    masks, labels = strokes()
    noise = np.random.default_rng(1).integers(0, 100, (NUM_IMAGES, SIDE, SIDE, 3)) + 150 * masks[..., None]
    images = np.concatenate([noise, np.full((NUM_IMAGES, SIDE, SIDE, 1), 255)], 3).astype(np.uint8)
    return ImageDataset(images, labels, ("circle", "square", "line"), tuple(map(str, range(NUM_IMAGES))))


def losses_of_training(dataset: ImageDataset, precision: str = "fp32", num_steps: int = NUM_STEPS) -> list[float]:
    """The loss of each step; the weights are finite after it."""
    mean, std = (torch.tensor(values) for values in channel_statistics(dataset.images))
    statistics = ChannelStatistics(mean, std.clamp_min(1 / 255))
    torch.manual_seed(0)
    model = build_model(RECIPE, dataset.image_shape[2], dataset.num_classes).train()
    init_whitening_(model, RECIPE, torch.from_numpy(dataset.images), statistics.mean, statistics.std)
    state = TrainingState(model, RECIPE, Precision(precision, CPU))
    resident, sampling = ResidentImages.from_dataset(dataset, CPU), Sampling(BATCH_SIZE, seed=0)
    loader = DeviceLoader(resident, statistics, build_augmentation(RECIPE), sampling, build_resizing(RECIPE))
    losses = []
    for step in range(num_steps):
        progress = (step + 1) / num_steps
        state.optimizer.prepare(*lr_and_momentum_at(RECIPE, progress), progress)
        losses.append(float(training_step(state, Loss(0.0), loader.batch(step, progress), BATCH_SIZE)))
        state.advance(progress)
        assert state.is_finite(), f"step {step + 1}"
    return losses


DATASETS = {
    "black on white": painted((0, 0, 0), WHITE),
    "white on black": painted(WHITE, (0, 0, 0)),
    "one channel": painted((0,), (255,)),
    "one channel constant": painted(RED, WHITE),
    "drawn in alpha": painted((0, 0, 0, 255), (0, 0, 0, 0)),
    "constant alpha": opaque_photos(),
}


@pytest.mark.parametrize("name", DATASETS)
def test_they_are_learned(name: str) -> None:
    losses = losses_of_training(DATASETS[name])
    assert np.mean(losses[-5:]) < 0.5 * losses[0], losses


@pytest.mark.parametrize("name", ["black on white", "one channel constant", "constant alpha"])
def test_they_are_learned_in_bf16(name: str) -> None:
    losses = losses_of_training(DATASETS[name], "bf16", NUM_BF16_STEPS)
    assert losses[-1] < losses[0], losses
