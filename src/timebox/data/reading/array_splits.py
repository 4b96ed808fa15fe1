"""From arrays of images and labels to LoadedData: maps labels of any kind to classes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.folders.names import SPLITS
from timebox.data.images.decode import CHANNEL_MODES
from timebox.data.reading.text import sort_naturally
from timebox.errors import DataError


@dataclass(frozen=True)
class ArraySplit:
    """A split of an array format: images uint8 (N, H, W, C), labels integers or strings (N,), not yet class indices.

    `ids` are those of the images; None for their positions.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.str_]
    ids: tuple[str, ...] | None = None


def as_images(array: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, C) as (N, H, W, C). Raises DataError, naming the array, for any other shape."""
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or images.shape[3] not in (1, 3, 4) or 0 in images.shape:
        raise DataError(f"{name} has the shape {images.shape}; it must be (N, H, W) or (N, H, W, 1, 3 or 4)")
    return images


def splits_from_arrays(
    arrays: dict[str, ArraySplit], class_names: tuple[str, ...] | None, source: str, is_scoring: bool = False
) -> SourceSplits:
    """Map the labels of each split ("train", "val", "test") to class indices.

    Without class_names, the classes are the labels of train in natural order; with `is_scoring` those of all splits, of
    which train may be missing. With class_names, integer labels are indices into them, and string labels are looked up
    in them. Raises DataError for a label without a class.
    """
    train = arrays["train"] if "train" in arrays else _empty_split(next(iter(arrays.values())))
    arrays = {**arrays, "train": train}
    if class_names is not None and train.labels.dtype.kind != "U":
        names, index_of = class_names, {str(index): index for index in range(len(class_names))}
    else:
        sources = arrays.values() if is_scoring else [train]
        labels = {str(label) for split in sources for label in np.unique(split.labels)}
        names = class_names or tuple(sort_naturally(sorted(labels)))
        index_of = {name: index for index, name in enumerate(names)}

    def dataset(split: str) -> ImageDataset:
        images, labels = arrays[split].images, arrays[split].labels
        if labels.shape != (len(images),):
            raise DataError(f"{source}: {split} has {len(images)} images but {len(labels)} labels")
        values, inverse = np.unique(labels, return_inverse=True)
        if unknown := [str(value) for value in values if str(value) not in index_of]:
            raise DataError(
                f"{source}: {split} has the label {unknown[0]!r}, which is none of the {len(index_of)} classes "
                f"({', '.join(list(index_of)[:10])}{', ...' if len(index_of) > 10 else ''})"
            )
        indices = np.array([index_of[str(value)] for value in values], dtype=np.int64)
        ids = arrays[split].ids
        positions = tuple(map(str, range(len(images))))
        return ImageDataset(images, indices[inverse], names, positions if ids is None else ids)

    return SourceSplits(**{split: dataset(split) for split in SPLITS if split in arrays})


def _empty_split(split: ArraySplit) -> ArraySplit:
    return ArraySplit(split.images[:0], split.labels[:0], ())


def loaded_from_arrays(name: str, format_name: str, splits: SourceSplits, why: str) -> LoadedData:
    """LoadedData of images that all have one size and mode. The arguments are fields of LoadedData."""
    height, width, channels = splits.train.image_shape
    sizes, modes = {f"{width}x{height}": splits.num_images}, {CHANNEL_MODES[channels]: splits.num_images}
    return LoadedData(name, format_name, splits, (), sizes, modes, (), why=why)
