"""One data set brought to the classes, size and channels of another: what is scored must fit what was trained."""

from dataclasses import replace

import numpy as np

from timebox.data.dataset import ImageDataset
from timebox.data.images.decode import CROP, fit_images
from timebox.errors import DataError


def align_labels(
    dataset: ImageDataset, class_names: tuple[str, ...], image_shape: tuple[int, int, int], source: str, fit: str = CROP
) -> ImageDataset:
    """`dataset` with labels that index `class_names` and images of `image_shape`.

    Where it can be read at that size in the first place (`image_size` of load_data), that scales once, not twice.

    Args:
        class_names: the classes to match, by name.
        image_shape: (H, W, C) to bring the images to.
        source: what errors call the data set.
        fit: ``crop`` or ``letterbox``, see load_data.
    Raises:
        DataError: for images of a class that is not among class_names.
    """
    dataset = relabel(dataset, class_names, source)
    images = fit_images(dataset.images, image_shape[:2], image_shape[2], fit)
    return dataset if images is dataset.images else replace(dataset, images=images)


def relabel(dataset: ImageDataset, class_names: tuple[str, ...], source: str) -> ImageDataset:
    """`dataset` with labels that index `class_names`, matched by name; a class without images need not be known."""
    if dataset.class_names == class_names:
        return dataset
    label_of = {name: label for label, name in enumerate(class_names)}
    present = np.flatnonzero(dataset.class_counts()).tolist()
    if unknown := [dataset.class_names[label] for label in present if dataset.class_names[label] not in label_of]:
        known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        raise DataError(
            f"{source} has images of classes unknown to training ({', '.join(unknown[:5])}); known are {known}"
        )
    new_labels = np.array([label_of.get(name, 0) for name in dataset.class_names], dtype=np.int64)
    return ImageDataset(dataset.images, new_labels[dataset.labels], class_names, dataset.ids)
