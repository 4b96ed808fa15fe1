"""What is in a data set, before anyone trains on it."""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.data.groups import series_notes

_CHUNK_IMAGES = 1024


@dataclass(frozen=True)
class Duplicates:
    """Images whose pixels, at working size, another image has as well.

    Args:
        where: "train" for repeats within train; "train and test" for images of test that train has.
        num_images: how many, of the later split; within one split, all but the first of each.
        num_relabelled: how many of them carry another label than the image they repeat.
        examples: up to five pairs of ids, the relabelled first.
    """

    where: str
    num_images: int
    num_relabelled: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Inspection:
    """What `timebox inspect` tells.

    Args:
        working_size: (H, W, C) of the images as read.
        class_counts: split -> class name -> number of images.
        mean, std: of each channel over train, in 0..1.
        duplicates: only the kinds that occur.
        (the others): as in LoadedData.
    """

    name: str
    format: str
    why: str
    working_size: tuple[int, int, int]
    class_names: tuple[str, ...]
    class_counts: dict[str, dict[str, int]]
    sizes: dict[str, int]
    modes: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bad_files: tuple[BadFile, ...]
    duplicates: tuple[Duplicates, ...]
    notes: tuple[str, ...]

    @property
    def num_images(self) -> dict[str, int]:
        """Split -> number of images."""
        return {split: sum(counts.values()) for split, counts in self.class_counts.items()}

    def as_dict(self) -> dict[str, object]:
        """Plain values, fit for JSON."""
        return asdict(self) | {"num_classes": len(self.class_names), "num_images": self.num_images}


def inspect_data(loaded: LoadedData) -> Inspection:
    """Count, measure and compare the images of a data set. Takes about a second per 100,000 32x32 images."""
    splits = loaded.splits
    mean, std = channel_statistics(splits.train.images)
    return Inspection(
        name=loaded.name,
        format=loaded.format,
        why=loaded.why,
        working_size=splits.train.image_shape,
        class_names=splits.train.class_names,
        class_counts={
            name: dict(zip(split.class_names, split.class_counts().tolist(), strict=True))
            for name, split in splits.items()
        },
        sizes=loaded.sizes,
        modes=loaded.modes,
        mean=mean,
        std=std,
        bad_files=loaded.bad_files,
        duplicates=_find_duplicates(splits),
        notes=(*loaded.notes, *series_notes(splits.train.ids, splits.train.labels)),
    )


def image_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The 64-bit BLAKE2b hash of each image's bytes, the same on every machine: uint8 (N, H, W, C) -> uint64 (N,)."""
    digests = b"".join(hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, from exact sums taken chunk by chunk."""
    channels = images.shape[3]
    histogram = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK_IMAGES):
        chunk = images[start : start + _CHUNK_IMAGES]
        for channel in range(channels):
            histogram[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(np.maximum(share @ values**2 - mean**2, 0))
    return tuple(mean.tolist()), tuple(std.tolist())


def _find_duplicates(splits: SourceSplits) -> tuple[Duplicates, ...]:
    hashes = {name: image_hashes(split.images) for name, split in splits.items()}
    named = splits.items()
    found = []
    for position, (name, split) in enumerate(named):
        found.append(_repeats(name, split, hashes[name], split, hashes[name]))
        for later_name, later in named[position + 1 :]:
            found.append(_repeats(f"{name} and {later_name}", split, hashes[name], later, hashes[later_name]))
    return tuple(duplicates for duplicates in found if duplicates.num_images)


def _repeats(
    where: str,
    first: ImageDataset,
    first_hashes: NDArray[np.uint64],
    later: ImageDataset,
    later_hashes: NDArray[np.uint64],
) -> Duplicates:
    """The images of `later` that `first` has; of a data set and itself, those that it has earlier on."""
    _, firsts = np.unique(first_hashes, return_index=True)
    order = firsts[np.argsort(first_hashes[firsts])]
    nearest = np.minimum(np.searchsorted(first_hashes[order], later_hashes), len(order) - 1)
    original = order[nearest]
    repeated = first_hashes[original] == later_hashes
    if first is later:
        repeated &= original != np.arange(len(later))
    relabelled = repeated & (first.labels[original] != later.labels)
    ranked = np.concatenate([np.flatnonzero(relabelled), np.flatnonzero(repeated & ~relabelled)])[:5].tolist()
    examples = tuple((first.ids[original[index]], later.ids[index]) for index in ranked)
    return Duplicates(where, int(repeated.sum()), int(relabelled.sum()), examples)
