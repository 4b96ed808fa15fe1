"""`timebox inspect`: class counts, channel statistics and duplicate images of a data set."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.data.folders.outside import OutsideFiles
from timebox.data.groups import frame_series_notes
from timebox.data.left_out import LeftOut

_CHUNK_IMAGES = 1024
_MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Duplicates:
    """Images with the same pixels, after resizing to the working size."""

    where: str  # "train" for duplicates within train; "train and test" for images of test that are in train too
    num_images: int  # duplicates in the later split; within one split, all but the first of each set
    num_relabelled: int  # duplicates whose label differs from that of the first image
    examples: tuple[tuple[str, str], ...]  # up to five pairs of ids, those with different labels first


@dataclass(frozen=True)
class Inspection:
    """The result of `timebox inspect`; for the fields of LoadedData see there."""

    name: str
    format: str
    why: str
    working_size: tuple[int, int, int]  # (H, W, C) of the images after reading
    class_names: tuple[str, ...]
    class_counts: dict[str, dict[str, int]]  # split -> class name -> number of images
    sizes: dict[str, int]
    modes: dict[str, int]
    mean: tuple[float, ...]  # of each channel over train, in 0..1
    std: tuple[float, ...]
    bad_files: tuple[BadFile, ...]
    duplicates: tuple[Duplicates, ...]  # for each split and pair of splits that has any
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    outside_files: OutsideFiles | None = None  # image files outside the source's folder

    @property
    def num_images(self) -> dict[str, int]:
        """Split -> number of images."""
        return {split: sum(counts.values()) for split, counts in self.class_counts.items()}

    def as_dict(self) -> dict[str, object]:
        """All fields and counts as values that JSON can hold."""
        return asdict(self) | {"num_classes": len(self.class_names), "num_images": self.num_images}


def inspect_data(loaded: LoadedData) -> Inspection:
    """Count the images, measure their channels and find duplicates: about one second per 100,000 32x32 images."""
    splits = loaded.splits
    mean, std = channel_statistics(splits.train.images)
    class_counts = {
        name: dict(zip(split.class_names, split.class_counts().tolist(), strict=True)) for name, split in splits.items()
    }
    return Inspection(
        name=loaded.name,
        format=loaded.format,
        why=loaded.why,
        working_size=splits.train.image_shape,
        class_names=splits.train.class_names,
        class_counts=class_counts,
        sizes=loaded.sizes,
        modes=loaded.modes,
        mean=mean,
        std=std,
        bad_files=loaded.bad_files,
        duplicates=_find_duplicates(splits),
        left_out=loaded.left_out,
        outside_files=loaded.outside_files,
        notes=(*loaded.notes, *frame_series_notes(splits.train.ids, splits.train.labels)),
    )


def image_hashes(
    images: NDArray[np.uint8], advance: Callable[[int], object] = lambda num_done: None
) -> NDArray[np.uint64]:
    """The 64-bit BLAKE2b hash of each image's bytes, equal on every machine: uint8 (N, H, W, C) -> uint64 (N,).

    `advance` is called with the number of images done, every few images.
    """
    digests = bytearray()
    for number, image in enumerate(images):
        if number % _CHUNK_IMAGES == 0:
            advance(number)
        digests += hashlib.blake2b(image.tobytes(), digest_size=8).digest()
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each channel of uint8 (N, H, W, C), of pixels scaled to 0..1, from exact histograms."""
    channels = images.shape[3]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK_IMAGES):
        chunk = images[start : start + _CHUNK_IMAGES]
        for channel in range(channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values, frequency = np.arange(256) / 255, histogram / histogram.sum(axis=1, keepdims=True)
    mean = frequency @ values
    std = np.sqrt(np.maximum(frequency @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(std.tolist())


def _find_duplicates(splits: SourceSplits) -> tuple[Duplicates, ...]:
    hashed = [_HashedSplit(name, split, image_hashes(split.images)) for name, split in splits.items()]
    results = [_duplicates(first, later) for first, later in combinations_with_replacement(hashed, 2)]
    return tuple(duplicates for duplicates in results if duplicates.num_images)


@dataclass(frozen=True, eq=False)
class _HashedSplit:
    """A split and the hash of each of its images: uint64 (N,)."""

    name: str
    dataset: ImageDataset
    hashes: NDArray[np.uint64]


def _duplicates(first: _HashedSplit, later: _HashedSplit) -> Duplicates:
    """The images of `later` that are in `first`; where both are one split, those that occur earlier in it."""
    where = first.name if first is later else f"{first.name} and {later.name}"
    _, firsts = np.unique(first.hashes, return_index=True)
    order = firsts[np.argsort(first.hashes[firsts])]
    nearest = np.minimum(np.searchsorted(first.hashes[order], later.hashes), len(order) - 1)
    original = order[nearest]
    is_duplicate = first.hashes[original] == later.hashes
    if first is later:
        is_duplicate &= original != np.arange(len(later.hashes))
    is_relabelled = is_duplicate & (first.dataset.labels[original] != later.dataset.labels)
    ranked = np.concatenate([np.flatnonzero(is_relabelled), np.flatnonzero(is_duplicate & ~is_relabelled)])
    examples = tuple(
        (first.dataset.ids[original[index]], later.dataset.ids[index]) for index in ranked[:_MAX_EXAMPLES].tolist()
    )
    return Duplicates(where, int(is_duplicate.sum()), int(is_relabelled.sum()), examples)
