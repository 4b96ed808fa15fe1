"""Accuracy of a linear classifier on whitened patches: how hard a data set is, measured in less than a second."""

import math
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.clock import now
from timebox.data.dataset import ImageDataset

# Images that are drawn, those of them that are few, and the side in pixels to which larger images are shrunk.
MAX_IMAGES, FEW_IMAGES, SIDE = 2000, 500, 32
# Side of a patch and distance between patches in pixels, patches that become filters, and those that whitening is
# fitted to.
PATCH_SIDE, STRIDE, NUM_FILTERS, NUM_PATCHES = 6, 2, 64, 5000
# Cells along each side of an image over which the responses are averaged, and what a response has to exceed.
GRID, THRESHOLD = 3, 0.25
# Share of the mean eigenvalue that is added before whitening; strengths of the ridge regression, by image.
WHITENING_EPSILON, RIDGES = 0.1, (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
MIN_STD, BATCH_SIZE = 1e-3, 128
# Seconds of the whole as a multiple of those of the responses.
SECONDS_PER_RESPONSES = 2.0


@dataclass(frozen=True)
class PatchAccuracy:
    """Leave-one-out accuracies, 0...1, of the classifier on patches: how hard a data set is, and what more images gain.

    Attributes:
        many: fitted to 2,000 images, or to all.
        few: fitted to 500 of them.
    """

    many: float
    few: float


class TooSlowError(Exception):
    """The classifier would take longer than its time limit."""


@torch.no_grad()
def measure_patch_accuracy(dataset: ImageDataset, seed: int = 0, limit_seconds: float = inf) -> PatchAccuracy:
    """Classify images by a ridge regression on the responses of whitened random patches.

    Up to 2,000 images are drawn with ``seed``, and shrunk to 32 pixels where they are larger. Patches of them are the
    filters of one convolution, whose positive and negative responses are averaged over a grid of 3x3. The best of six
    strengths of the regression counts. (Coates and Ng 2012, Learning Feature Representations with K-means.)

    Raises TooSlowError where the first images take so long that ``limit_seconds`` would not be enough for all.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(dataset), generator=generator)[:MAX_IMAGES]
    images = _standardized(torch.from_numpy(dataset.images[drawn.numpy()]))
    features = _responses(images, _whitened_filters(images, generator), limit_seconds)
    labels = torch.from_numpy(dataset.labels)[drawn]
    few = slice(FEW_IMAGES)
    return PatchAccuracy(
        _accuracy(features, labels, dataset.num_classes), _accuracy(features[few], labels[few], dataset.num_classes)
    )


def _accuracy(features: Tensor, labels: Tensor, num_classes: int) -> float:
    """Leave-one-out accuracy with the best strength of the regression."""
    targets = F.one_hot(labels, num_classes).float()
    predictions = _leave_one_out(features - features.mean(0), targets - targets.mean(0))
    return max((scores.argmax(1) == labels).float().mean().item() for scores in predictions)


def _standardized(images: Tensor) -> Tensor:
    """uint8 (N, H, W, C) as float32 (N, C, h, w) of mean 0 and standard deviation 1 in each channel."""
    pixels = images.permute(0, 3, 1, 2)
    batches = (batch.float() / 255 for batch in pixels.split(BATCH_SIZE))
    if min(pixels.shape[2:]) > SIDE:
        batches = (F.interpolate(batch, size=(SIDE, SIDE), mode="area") for batch in batches)
    small = torch.cat(list(batches))
    return (small - small.mean((0, 2, 3), keepdim=True)) / small.std((0, 2, 3), keepdim=True).clamp_min(MIN_STD)


def _whitened_filters(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random patches, whitened and of length 1, as filters (NUM_FILTERS, C, side, side) for images not whitened."""
    channels, side = images.shape[1], min(PATCH_SIDE, min(images.shape[2:]) // 2)
    windows = images.unfold(2, side, 1).unfold(3, side, 1)
    index = [
        torch.randint(size, (NUM_PATCHES,), generator=generator)
        for size in (windows.shape[0], windows.shape[2], windows.shape[3])
    ]
    patches = windows[index[0], :, index[1], index[2]].flatten(1)
    patches = patches - patches.mean(1, keepdim=True)
    centred = patches - patches.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / NUM_PATCHES)
    whitening = directions / (variances + WHITENING_EPSILON * variances.mean()).clamp_min(1e-12).sqrt() @ directions.T
    filters: Tensor = F.normalize(centred[:NUM_FILTERS] @ whitening) @ whitening
    filters = filters - filters.mean(1, keepdim=True)
    return filters.view(NUM_FILTERS, channels, side, side)


def _responses(images: Tensor, filters: Tensor, limit_seconds: float) -> Tensor:
    """Standardized mean positive and negative responses in each cell of the grid, (N, 2 * filters * cells)."""
    started = now()

    def averaged(batch: Tensor) -> Tensor:
        responses = F.conv2d(batch, filters, stride=STRIDE)
        signs = torch.cat([F.relu(sign * responses - THRESHOLD) for sign in (1, -1)], 1)
        averages: Tensor = F.adaptive_avg_pool2d(signs, GRID)
        return averages.flatten(1)

    batches = images.split(BATCH_SIZE)
    measured = [averaged(batches[0])]
    if SECONDS_PER_RESPONSES * len(batches) * (now() - started) > limit_seconds:
        raise TooSlowError
    features = torch.cat([*measured, *(averaged(batch) for batch in batches[1:])])
    standardized: Tensor = (features - features.mean(0)) / features.std(0).clamp_min(1e-4)
    return standardized / math.sqrt(features.shape[1])


def _leave_one_out(features: Tensor, targets: Tensor) -> list[Tensor]:
    """Predictions of ridge regressions on all other images for each image, (N, classes), for each of RIDGES."""
    num_images = len(features)
    variances, directions = torch.linalg.eigh(features.T @ features)
    projected = features @ directions
    correlations = projected.T @ targets
    predictions = []
    for ridge in RIDGES:
        shrinkage = 1 / (variances.clamp_min(0) + ridge * num_images)
        fitted = projected @ (shrinkage[:, None] * correlations)
        leverage = projected.square() @ shrinkage + 1 / num_images
        predictions.append(targets - (targets - fitted) / (1 - leverage.clamp_max(0.999))[:, None])
    return predictions
