"""ImageDataset, labelled uint8 images: the output of every reader and the input of splits, training and evaluation."""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timebox.data.arrays.memory_map import take_images
from timebox.data.folders.outside import OutsideFiles
from timebox.data.images.decode import CROP, WHITE_16BIT, fit_images
from timebox.data.left_out import LeftOut
from timebox.data.part import PartRead
from timebox.data.reading.text import abbreviate_list, first_repeated
from timebox.errors import DataError

MAX_NAMES_BYTES = 32 << 20  # of all class names, in UTF-8: model.json holds them, and is read with a limit


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One split of a data set.

    Args:
        images: uint8 (N, H, W, C), C of 1 (grey), 3 (RGB) or 4 (RGBA).
        labels: int64 (N,), each an index into class_names, which are distinct.
        ids: for each image its path relative to the source, or its index in the source as text.
    Raises:
        DataError: for a wrong shape or dtype, or arguments that do not match each other.

    >>> import numpy as np
    >>> from timebox import ImageDataset
    >>> images = np.zeros((2, 32, 32, 3), np.uint8)
    >>> len(ImageDataset(images, np.array([0, 1]), ("cat", "dog"), ("1.png", "2.png")))
    2
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape[1:3]:
            raise DataError(
                f"images are {images.dtype} {images.shape}: they must be uint8 (N, H, W, C) with 1, 3 or 4 channels"
            )
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise DataError(f"labels are {labels.dtype} {labels.shape}: these images need int64 ({len(images)},)")
        if len(self.ids) != len(images):
            raise DataError(f"there are {len(self.ids)} ids for {len(images)} images: each image needs one")
        if (repeated := first_repeated(self.class_names)) is not None:
            raise DataError(f"class names must be distinct, but {repeated!r} comes twice")
        if bad := next((name for name in self.class_names if re.search("[\ud800-\udfff]", name)), None):
            raise DataError(f"class name {bad!r} cannot be encoded in UTF-8: rename the class")
        if (num_bytes := sum(map(len, map(str.encode, self.class_names)))) > MAX_NAMES_BYTES:
            raise DataError(
                f"the names of {self.num_classes:,} classes take {num_bytes:,} bytes, and {MAX_NAMES_BYTES:,} are "
                "allowed: give the classes shorter names"
            )
        if "" in self.class_names:
            raise DataError("a class has an empty name: rename the class")
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.num_classes:
            raise DataError(
                f"labels run from {labels.min()} to {labels.max()}: with {self.num_classes} classes "
                f"they must lie in 0..{self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def class_counts(self) -> NDArray[np.int64]:
        """Number of images of each class: int64 (num_classes,)."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def take(self, indices: ArrayLike) -> "ImageDataset":
        """The images at `indices` in that order, as a copy; a prefix of images in a memory map as a view."""
        indices = np.asarray(indices, dtype=np.int64)
        ids = tuple(self.ids[index] for index in indices.tolist())
        return ImageDataset(take_images(self.images, indices), self.labels[indices], self.class_names, ids)


@dataclass(frozen=True)
class BadFile:
    """An image file that could not be read: its path relative to the source, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class SourceSplits:
    """The splits of a data set as its source defines them; val and test are None where the source has none."""

    train: ImageDataset
    val: ImageDataset | None = None
    test: ImageDataset | None = None

    @property
    def num_images(self) -> int:
        return sum(len(split) for _, split in self.items())

    def items(self) -> list[tuple[str, ImageDataset]]:
        """(name, split) of the splits that are not None."""
        splits = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(name, split) for name, split in splits if split is not None]


@dataclass(frozen=True)
class LoadedData:
    """The result of reading a source, before it is split or limited."""

    name: str  # usable as a directory name: "cifar10", "photos"
    format: str  # "folder of class folders", "CIFAR-10 python batches"
    splits: SourceSplits
    bad_files: tuple[BadFile, ...]  # image files left out as unreadable
    sizes: dict[str, int]  # original size, "100x100" (width x height) -> number of images
    modes: dict[str, int]  # original Pillow mode, "RGB" -> number of images
    notes: tuple[str, ...]  # one sentence for the user on each thing left out, changed or unusual
    download_seconds: float = 0.0  # of a first-time download, which does not count towards the budget
    why: str = ""  # the evidence for the format: "it holds data_batch_1 and test_batch"
    left_out: tuple[LeftOut, ...] = ()  # files, folders and rows that are not read; each has a sentence in notes
    white_16bit: int = WHITE_16BIT  # the value of 16-bit grey images that became 255
    part: PartRead | None = None  # the part of the images that was read, where there was no time for all
    outside_files: OutsideFiles | None = None  # files outside the source's folder; their sentence is in notes


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
        known = {name.casefold() for name in class_names}
        only_case = "; only upper and lower case differ" if {name.casefold() for name in unknown} <= known else ""
        raise DataError(
            f"{source} has images of classes unknown to training ({', '.join(unknown[:5])}); "
            f"known are {abbreviate_list(class_names, 10)}{only_case}"
        )
    new_labels = np.array([label_of.get(name, 0) for name in dataset.class_names], dtype=np.int64)
    return ImageDataset(dataset.images, new_labels[dataset.labels], class_names, dataset.ids)
