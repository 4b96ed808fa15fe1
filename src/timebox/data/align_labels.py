"""Brings a data set to the classes and image shape of another, so that a model trained on one can be scored on both."""

from dataclasses import replace

import numpy as np

from timebox.data.dataset import ImageDataset
from timebox.data.images.decode import CROP, fit_images
from timebox.data.reading.text import abbreviate_list
from timebox.errors import DataError


def align_labels(
    dataset: ImageDataset, class_names: tuple[str, ...], image_shape: tuple[int, int, int], source: str, fit: str = CROP
) -> ImageDataset:
    """Return `dataset` with labels that index `class_names`, as :func:`relabel`, and images of `image_shape` (H, W, C).

    Where the data can be read at that size (`image_size` of load_data), prefer that: images are then scaled only once.
    `source` is named in errors; `fit` is ``crop`` or ``letterbox``, see load_data.
    """
    dataset = relabel(dataset, class_names, source)
    images = fit_images(dataset.images, image_shape[:2], image_shape[2], fit)
    return dataset if images is dataset.images else replace(dataset, images=images)


def relabel(dataset: ImageDataset, class_names: tuple[str, ...], source: str) -> ImageDataset:
    """Return `dataset` with labels that index `class_names`, matched by name.

    Classes without images are dropped. Raises DataError for images of a class that is not in class_names.
    """
    if dataset.class_names == class_names:
        return dataset
    label_of = {name: label for label, name in enumerate(class_names)}
    present = np.flatnonzero(dataset.class_counts()).tolist()
    if unknown := [dataset.class_names[label] for label in present if dataset.class_names[label] not in label_of]:
        raise DataError(
            f"{source} has images of classes unknown to training ({', '.join(unknown[:5])}); "
            f"known are {abbreviate_list(class_names, 10)}"
        )
    new_labels = np.array([label_of.get(name, 0) for name in dataset.class_names], dtype=np.int64)
    return ImageDataset(dataset.images, new_labels[dataset.labels], class_names, dataset.ids)
