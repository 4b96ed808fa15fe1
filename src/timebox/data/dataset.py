"""What every reader returns and everything downstream takes: labelled uint8 images, nothing else."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timebox.data.arrays.memory_map import taken
from timebox.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One split of a data set.

    Args:
        images: uint8 (N, H, W, C), C of 1 (grey), 3 (RGB) or 4 (RGBA).
        labels: int64 (N,), each an index into class_names.
        class_names: distinct, one per class.
        ids: one per image: its path relative to the source, or its index in the source as text.
    Raises:
        DataError: where these do not fit each other.

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
        if len(set(self.class_names)) != len(self.class_names):
            raise DataError(f"class names must be distinct, but {_first_repeated(self.class_names)!r} comes twice")
        if bad := next((name for name in self.class_names if not _is_name(name)), None):
            raise DataError(f"class name {bad!r} cannot be written down in UTF-8: give the class another")
        if "" in self.class_names:
            raise DataError("a class has an empty name: give it another")
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
        """How many images each class has: int64 (num_classes,)."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def take(self, indices: ArrayLike) -> "ImageDataset":
        """The images at `indices`, in that order, as a copy."""
        chosen = np.asarray(indices, dtype=np.int64)
        ids = tuple(self.ids[index] for index in chosen.tolist())
        return ImageDataset(taken(self.images, chosen), self.labels[chosen], self.class_names, ids)


@dataclass(frozen=True)
class BadFile:
    """An image file that could not be read: its path relative to the source, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class SourceSplits:
    """A data set as its source divides it; a split the source does not have is None."""

    train: ImageDataset
    val: ImageDataset | None
    test: ImageDataset | None

    def items(self) -> list[tuple[str, ImageDataset]]:
        """The splits there are, by name."""
        splits = (("train", self.train), ("val", self.val), ("test", self.test))
        return [(name, split) for name, split in splits if split is not None]


@dataclass(frozen=True)
class LoadedData:
    """A source as read, before any cut.

    Args:
        name: short and fit for a directory name: "cifar10", "photos".
        format: what it was read as: "folder of class folders", "CIFAR-10 python batches".
        splits: as the source itself divides them.
        bad_files: files skipped as unreadable.
        sizes: width x height as found, "100x100" -> number of images.
        modes: Pillow mode as found, "RGB" -> number of images.
        notes: what was survived and must be told, a sentence each.
        download_seconds: spent on a first-time download, which the clock leaves out.
        why: what the format was told by, for people to read.
    """

    name: str
    format: str
    splits: SourceSplits
    bad_files: tuple[BadFile, ...]
    sizes: dict[str, int]
    modes: dict[str, int]
    notes: tuple[str, ...]
    download_seconds: float = 0.0
    why: str = ""


def _first_repeated(names: tuple[str, ...]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name comes twice")


def _is_name(name: str) -> bool:
    """Whether a name can be written to a file; half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
