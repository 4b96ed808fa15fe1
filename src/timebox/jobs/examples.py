"""Selects the example images of the report: confident errors, uncertain correct predictions, suspect labels and
augmented images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.data import ImageDataset
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.evaluation.calibration import apply_temperature
from timebox.optim.margins import MeanMargins
from timebox.reporting import Example
from timebox.run.results.suspects import Suspects

NUM_MISTAKES, NUM_UNSURE, NUM_SUSPECTS, NUM_AUGMENTED = 32, 20, 32, 12
# Suspect images that are kept, at most.
MAX_SUSPECTS = 1000


def prediction_examples(
    dataset: ImageDataset, probabilities: NDArray[np.float32], temperature: float | None
) -> list[Example]:
    """The errors with the highest confidence and the correct predictions with the lowest.

    Args:
        probabilities: float32 (N, num_classes), of the N images of ``dataset``; not calibrated.
        temperature: of the calibration; None for uncalibrated confidences.
    """
    confidence = apply_temperature(probabilities, temperature or 1.0).max(1)
    predicted = probabilities.argmax(1)
    correct, order = predicted == dataset.labels, np.argsort(confidence, kind="stable")
    mistakes, unsure = order[~correct[order]][::-1][:NUM_MISTAKES], order[correct[order]][:NUM_UNSURE]

    def example(kind: str, i: int) -> Example:
        label, confident = int(dataset.labels[i]), float(confidence[i])
        return Example(kind, dataset.images[i], dataset.ids[i], label, int(predicted[i]), confident)

    return [example("mistake", i) for i in mistakes] + [example("unsure", i) for i in unsure]


def find_suspects(means: MeanMargins) -> NDArray[np.int64]:
    """The positions of the images with a mean margin below 0, lowest first: on average the network preferred another
    class."""
    margins = np.where(np.isnan(means.margins), 0.0, means.margins)
    order = np.argsort(margins, kind="stable")[:MAX_SUSPECTS]
    return order[margins[order] < 0]


def suspects_at(positions: NDArray[np.int64], train: ImageDataset, means: MeanMargins) -> Suspects:
    """The suspects at these positions among the training images."""
    ids = np.array([train.ids[index] for index in positions], dtype=str)
    return Suspects(ids, train.labels[positions], means.rivals[positions], means.margins[positions])


def suspect_examples(positions: NDArray[np.int64], train: ImageDataset, means: MeanMargins) -> list[Example]:
    """The most suspect images for the report. Their confidence is not used."""
    return [
        Example("suspect", train.images[i], train.ids[i], int(train.labels[i]), int(means.rivals[i]), 0.0)
        for i in positions[:NUM_SUSPECTS]
    ]


def augmented_examples(
    train: ImageDataset, statistics: ChannelStatistics, augmentation: Augmentation, seed: int
) -> list[Example]:
    """Random training images after augmentation. The label of a mixup image is the class with the larger weight."""
    rng = np.random.default_rng(seed)
    sample = train.take(np.sort(rng.choice(len(train), min(NUM_AUGMENTED, len(train)), replace=False)))
    images = ResidentImages.from_dataset(sample, torch.device("cpu"))
    loader = DeviceLoader(images, statistics, augmentation, Sampling(len(sample), seed))
    batch = loader.batch(0, progress=0.0)
    pixels = batch.images.permute(0, 2, 3, 1) * statistics.std + statistics.mean
    pixels = pixels.mul(255).round().clamp(0, 255).to(torch.uint8)
    labels = (batch.labels.argmax(1) if augmentation.mixup else batch.labels).tolist()
    return [
        Example("augmented", image, train.class_names[label], label, label, 1.0)
        for image, label in zip(pixels.numpy(), labels, strict=True)
    ]


def columns_from_examples(examples: Sequence[Example]) -> dict[str, NDArray[np.generic]]:
    """The arrays of examples.npz."""
    return {
        "kind": np.array([one.kind for one in examples]),
        "image": np.stack([one.image for one in examples]),
        "name": np.array([one.name for one in examples]),
        "label": np.array([one.label for one in examples], np.int64),
        "predicted": np.array([one.predicted for one in examples], np.int64),
        "confidence": np.array([one.confidence for one in examples], np.float64),
    }


def examples_from_columns(columns: Mapping[str, NDArray[np.generic]], num_classes: int) -> list[Example]:
    """The examples in the arrays of examples.npz, none where there are no arrays. Raises ValueError where an array is
    missing, or does not fit the others or the model."""
    if not columns:
        return []
    try:
        kinds, images, names = columns["kind"], columns["image"], columns["name"]
        labels, predicted, confidence = columns["label"], columns["predicted"], columns["confidence"]
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(f"its images must be uint8 (N, H, W, 1, 3 or 4), not {images.dtype} {images.shape}")
    if {len(column) for column in (kinds, names, labels, predicted, confidence)} != {len(images)}:
        raise ValueError("its columns differ in length")
    for indices in (labels, predicted):
        if indices.dtype != np.int64 or not np.isin(indices, np.arange(num_classes)).all():
            raise ValueError(f"its class indices must be int64 from 0 to {num_classes - 1}")
    rows = zip(kinds, images, names, labels, predicted, confidence, strict=True)
    return [Example(str(k), i.astype(np.uint8), str(n), int(y), int(p), float(c)) for k, i, n, y, p, c in rows]
