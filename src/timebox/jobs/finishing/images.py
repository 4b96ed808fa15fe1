"""Selects the images that the report shows: thumbnails of the scored images, suspect labels and augmented images."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.builders import build_augmentation
from timebox.data import ImageDataset
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.jobs.job import TrainingJob
from timebox.optim.margins import MeanMargins
from timebox.reporting import Example, SplitPredictions
from timebox.reporting.image_browser import by_interest
from timebox.run.results.suspects import Suspects
from timebox.run.results.thumbnails import Thumbnails, encode_thumbnail

NUM_SUSPECTS, NUM_AUGMENTED = 32, 12
# The longest side in pixels of the thumbnail of an image that is misclassified, and of one that is not.
ERROR_SIDE, CORRECT_SIDE = 160, 80
MAX_THUMBNAIL_BYTES = 12 << 20
# Suspect images that are kept, at most.
MAX_SUSPECTS = 1000


def prediction_thumbnails(
    dataset: ImageDataset, predictions: SplitPredictions, has_time: Callable[[], bool]
) -> Thumbnails:
    """Thumbnails of the images with these predictions, the most interesting first, while there is time and room.

    Errors are larger than correct predictions, as they are looked at more closely.

    Args:
        dataset: whose N images have the N ``predictions``.
        has_time: asked after each image; False ends it.
    """
    rows, images, num_bytes = by_interest(predictions), list[bytes](), 0
    is_error = predictions.predicted != predictions.labels
    for row in rows:
        if num_bytes > MAX_THUMBNAIL_BYTES or not has_time():
            break
        images.append(encode_thumbnail(dataset.images[row], ERROR_SIDE if is_error[row] else CORRECT_SIDE))
        num_bytes += len(images[-1])
    return Thumbnails(predictions.split, rows[: len(images)], tuple(images))


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


def augmented_examples_of(job: TrainingJob) -> list[Example]:
    """Training images as the job augments them."""
    augmentation = build_augmentation(job.plan.recipe)
    return augmented_examples(job.data_splits.train, job.statistics, augmentation, job.config.seed)


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
