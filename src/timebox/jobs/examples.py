"""Example images of a report: confident mistakes, uncertain hits, and augmented training images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.data import ImageDataset
from timebox.data.device.loader import Augmentation, DeviceLoader
from timebox.evaluation.calibration import apply_temperature
from timebox.reporting import Example

NUM_MISTAKES, NUM_UNSURE, NUM_AUGMENTED = 32, 20, 12


def scored_examples(
    dataset: ImageDataset, probabilities: NDArray[np.float32], temperature: float | None
) -> list[Example]:
    """The most confident mistakes and the least certain hits.

    Args:
        dataset: scored images, N.
        probabilities: float32 (N, num_classes), not calibrated.
        temperature: calibrates the confidence; None for none.
    """
    confidence = apply_temperature(probabilities, temperature or 1.0).max(1)
    predicted = probabilities.argmax(1)
    correct, order = predicted == dataset.labels, np.argsort(confidence, kind="stable")
    mistakes, unsure = order[~correct[order]][::-1][:NUM_MISTAKES], order[correct[order]][:NUM_UNSURE]
    return [
        Example(
            kind, dataset.images[i], dataset.ids[i], int(dataset.labels[i]), int(predicted[i]), float(confidence[i])
        )
        for kind, indices in (("mistake", mistakes), ("unsure", unsure))
        for i in indices
    ]


def augmented_examples(
    train: ImageDataset, mean: torch.Tensor, std: torch.Tensor, augmentation: Augmentation, seed: int
) -> list[Example]:
    """Training images after augmentation. A mixup image is labelled with the class of the larger share.

    Args:
        mean, std: float32 (C,), of the training images.
    """
    rng = np.random.default_rng(seed)
    sample = train.take(np.sort(rng.choice(len(train), min(NUM_AUGMENTED, len(train)), replace=False)))
    loader = DeviceLoader(sample, len(sample), mean, std, augmentation, seed, torch.device("cpu"))
    batch = loader.batch(0, progress=0.0)
    pixels = (batch.images.permute(0, 2, 3, 1) * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8).numpy()
    labels = (batch.labels.argmax(1) if augmentation.mixup else batch.labels).tolist()
    return [
        Example("augmented", image, train.class_names[label], label, label, 1.0)
        for image, label in zip(pixels, labels, strict=True)
    ]


def example_columns(examples: Sequence[Example]) -> dict[str, NDArray[np.generic]]:
    """The columns of examples.npz."""
    return {
        "kind": np.array([one.kind for one in examples]),
        "image": np.stack([one.image for one in examples]),
        "name": np.array([one.name for one in examples]),
        "label": np.array([one.label for one in examples], np.int64),
        "predicted": np.array([one.predicted for one in examples], np.int64),
        "confidence": np.array([one.confidence for one in examples], np.float64),
    }


def parse_examples(columns: Mapping[str, NDArray[np.generic]], num_classes: int) -> list[Example]:
    """The examples in the columns of examples.npz. Raises ValueError where a column is missing or damaged."""
    if not columns:
        return []
    try:
        kinds, images, names = columns["kind"], columns["image"], columns["name"]
        labels, predicted, confidence = columns["label"], columns["predicted"], columns["confidence"]
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError("its images are not uint8 (N, H, W, C)")
    if {len(column) for column in (kinds, names, labels, predicted, confidence)} != {len(images)}:
        raise ValueError("its columns differ in length")
    for numbers in (labels, predicted):
        if numbers.dtype != np.int64 or not np.isin(numbers, np.arange(num_classes)).all():
            raise ValueError("it has a class that the model has not")
    return [
        Example(
            str(kinds[i]),
            images[i].astype(np.uint8),
            str(names[i]),
            int(labels[i]),
            int(predicted[i]),
            float(confidence[i]),
        )
        for i in range(len(images))
    ]
