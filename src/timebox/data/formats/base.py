"""What a format is to the detector, and what every format is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.decoded_cache import Identity, Prepared
from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.images.decode import CROP
from timebox.data.reading.wording import natural_order
from timebox.errors import DataError
from timebox.machine import available_memory

# Pixels: the largest side that encoded images are brought to where nothing tells that more are of use.
USUAL_SIDE = 64


@dataclass(frozen=True)
class ReadOptions:
    """How to read, whatever the format; a format ignores what does not concern it.

    Args:
        image_size: side in pixels of the square images wanted, or None for the format's own choice.
        coarse: of CIFAR-100, the 20 superclasses instead of the 100 classes.
        max_bad_share: 0..1, the share of unreadable files that is survived.
        progress: told now and then how far reading has come.
        copies: how many times the caller will hold the images in memory, those read included.
        prepared: where decoded images are kept between runs, None for nowhere.
        fit: how images of another shape become square, ``crop`` or ``letterbox``.
        origin: the archive that files were unpacked from for a moment.
        largest_side: of so many images, the largest side in pixels that the format's own choice may be.
    """

    image_size: int | None = None
    coarse: bool = False
    max_bad_share: float = 0.1
    progress: Callable[[str], None] = field(default=lambda text: None)
    copies: int = 1
    prepared: Prepared | None = None
    origin: Identity | None = None
    fit: str = CROP
    largest_side: Callable[[int], int] = field(default=lambda num_images: USUAL_SIDE)

    def claim(self, num_bytes: int, what: str, source: Path, *, reading: float = 1.0, scales: bool = False) -> None:
        """Say, before any of it is allocated, how much memory images will take.

        Args:
            num_bytes: what they take once.
            what: as errors describe them: "200,000 images of 256x256".
            source: named in errors.
            reading: how many times reading itself holds them at its peak.
            scales: whether they are brought to image_size while they are read, so that a smaller one takes less.
        Raises:
            DataError: where that is more than can be taken here without swapping.
        """
        kept = self.copies if scales or self.image_size is None else 1  # else it is what they are scaled to that stays
        needed, available = round(num_bytes * max(reading, kept)), available_memory()
        if available is not None and needed > available:
            remedy = "use a smaller --set image_size=N, or fewer images" if scales else "use fewer images"
            raise DataError(
                f"{source}{'/' if source.is_dir() else ''} needs about {_amount(needed)} of memory for {what}, "
                f"and {_amount(available)} are available here; {remedy}"
            )


class Format(Protocol):
    """One way of storing a data set. Reading raises DataError, naming the file at fault."""

    @property
    def name(self) -> str:
        """As error messages list it: "a folder of class folders"."""

    def matches(self, path: Path) -> bool:
        """Whether `path`, which exists, is stored this way. Cheap: names and first bytes only."""

    def read(self, path: Path, options: ReadOptions) -> LoadedData: ...


def _amount(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


class Throttle:
    """Passes a text on at most once a second, the first after a second: quick work stays silent."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self._progress = progress
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            self._progress(text)


@dataclass(frozen=True)
class RawSplit:
    """A split of an array format, its labels not yet classes: uint8 (N, H, W, C), then integers or strings (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | NDArray[np.str_]


def splits_from_arrays(raw: dict[str, RawSplit], class_names: tuple[str, ...] | None, source: str) -> SourceSplits:
    """Labels of any kind mapped to classes.

    Without class_names the classes are the labels that occur in train, in natural order. With them, integer labels
    are indices into class_names, and strings are looked up in it. Raises DataError where a label fits no class.
    """
    train = raw["train"]
    if class_names is not None and train.labels.dtype.kind != "U":
        names, known = class_names, {str(index): index for index in range(len(class_names))}
    else:
        names = class_names or tuple(natural_order([str(label) for label in np.unique(train.labels)]))
        known = {name: index for index, name in enumerate(names)}

    def dataset(split: str) -> ImageDataset | None:
        if split not in raw:
            return None
        images, labels = raw[split].images, raw[split].labels
        if labels.shape != (len(images),):
            raise DataError(f"{source}: {split} has {len(images)} images but {len(labels)} labels")
        values, inverse = np.unique(labels, return_inverse=True)
        if unknown := [str(value) for value in values if str(value) not in known]:
            raise DataError(
                f"{source}: {split} has the label {unknown[0]!r}, which is none of the {len(known)} classes "
                f"({', '.join(list(known)[:10])}{', ...' if len(known) > 10 else ''})"
            )
        index_of = np.array([known[str(value)] for value in values], dtype=np.int64)
        return ImageDataset(images, index_of[inverse], names, tuple(map(str, range(len(images)))))

    first = dataset("train")
    assert first is not None
    return SourceSplits(first, dataset("val"), dataset("test"))


def loaded_from_arrays(name: str, format_name: str, splits: SourceSplits, why: str) -> LoadedData:
    """LoadedData of a format whose images all have one size and mode."""
    height, width, channels = splits.train.image_shape
    count = sum(len(split) for _, split in splits.items())
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    return LoadedData(name, format_name, splits, (), {f"{width}x{height}": count}, {mode: count}, (), why=why)
