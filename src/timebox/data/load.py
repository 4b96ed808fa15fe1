"""From a path or a name to images in memory: the one place that decides what a source is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from timebox.data import named_datasets as names
from timebox.data.arrays.decoded_cache import Prepared
from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.formats import FORMATS, ReadOptions, detect, read_digits
from timebox.data.formats.base import loaded_from_arrays
from timebox.data.images.decode import CROP, HOW_FITTED, fit_images
from timebox.data.reading.wording import short_name, some
from timebox.errors import DataError, UsageError

# A class of so few images, and of so small a share of the median class, is hardly learned.
FEW_IMAGES, FEW_SHARE = 9, 0.2
# What errors and records call images that no file was read for.
IN_MEMORY = "images in memory"


def load_data(
    source: str | Path,
    *,
    image_size: int | None = None,
    coarse: bool = False,
    data_dir: Path | None = None,
    max_bad_share: float = 0.1,
    download: bool = True,
    copies: int = 1,
    progress: Callable[[str], None] | None = None,
    cache: bool = True,
    fit: str = CROP,
    largest_side: Callable[[int], int] | None = None,
) -> LoadedData:
    """Read a data set, whatever its format.

    Args:
        source: a path, or one of the names cifar10, cifar100, mnist, digits. A str equal to a name is the name, so that
            it means the same in every directory; "./mnist" or a Path is the path.
        image_size: side in pixels, 1 or more, of the square images wanted. None keeps them as stored, except in a
            folder: there, unless all are squares of one size from 8 to ``largest_side`` pixels, they become squares of
            the median shorter side, rounded down to a multiple of 8 and held to these bounds.
        coarse: of CIFAR-100, the 20 superclasses instead of the 100 classes.
        data_dir: where a named data set is looked for first, and downloaded to.
        max_bad_share: 0..1, the share of unreadable image files that is survived.
        download: whether a named data set that is nowhere on this machine may be fetched.
        copies: how many times the caller will hold the images in memory: 2 where splits are cut from them.
        progress: called with a line of text now and then.
        cache: whether images that take seconds to decode, or much memory, are kept on disk for the next run: in the
            folder that TIMEBOX_CACHE names, else in the user's cache.
        fit: how images of another shape become square: ``crop`` scales the shorter side and keeps the middle,
            ``letterbox`` scales the longer side and leaves black beside it.
        largest_side: gives, for so many images, the largest side in pixels, 8 or more, where none is asked for; 64 for
            any number by default.
    Raises:
        DataError: for what cannot be read or learned from, or would not fit into memory.
        UsageError: for an argument out of range.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size {image_size} must be at least 1 pixel")
    if not 0 <= max_bad_share <= 1:
        raise UsageError(f"max_bad_share {max_bad_share:g} must lie in 0..1: it is a share of the image files")
    notify = progress or (lambda text: None)
    prepared = Prepared() if cache and source not in names.NAMES else None
    options = ReadOptions(image_size, coarse, max_bad_share, notify, copies, prepared, fit=fit)
    options = options if largest_side is None else replace(options, largest_side=largest_side)
    loaded = _load_name(source, options, data_dir, download) if source in names.NAMES else _load_path(source, options)
    if coarse and not any(known in loaded.format for known in ("CIFAR-100", "table")):
        raise UsageError(f"coarse asks for CIFAR-100's superclasses, but {source} holds {loaded.format}")
    if image_size is not None:
        loaded = _resized(loaded, image_size, options, Path(source))
    return replace(loaded, notes=(*loaded.notes, *_check_learnable(loaded.splits.train, source)))


def as_loaded(dataset: ImageDataset, image_size: int | None = None, copies: int = 1, fit: str = CROP) -> LoadedData:
    """Images that are in memory already, as if they had been read. Arguments and errors are those of load_data."""
    source = Path(IN_MEMORY)
    loaded = loaded_from_arrays("images", IN_MEMORY, SourceSplits(dataset, None, None), "they were given as such")
    if image_size is not None:
        loaded = _resized(loaded, image_size, ReadOptions(image_size, copies=copies, fit=fit), source)
    return replace(loaded, notes=(*loaded.notes, *_check_learnable(loaded.splits.train, source)))


def _load_name(source: str | Path, options: ReadOptions, data_dir: Path | None, download: bool) -> LoadedData:
    name = str(source)
    shadowed = (f"{name} is read as the data set of that name, not as ./{name}",) if Path(name).exists() else ()
    if name == "digits":
        return replace(read_digits(), notes=shadowed)
    located = names.locate(name, data_dir=data_dir, download=download, progress=options.progress)
    loaded = _read(located.path, options)
    return replace(
        loaded,
        name=f"{name}-coarse" if options.coarse else name,
        notes=(*loaded.notes, *shadowed),
        download_seconds=located.download_seconds,
    )


def _load_path(source: str | Path, options: ReadOptions) -> LoadedData:
    try:
        path = Path(source).expanduser()
        if not path.exists():
            raise names.unknown_source(str(source))
        return _read(path, options)
    except OSError as error:  # not allowed, too long a name, links in a circle, ...
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{error.filename or source}: {reason}") from error
    except RuntimeError as error:
        if not str(source).startswith("~"):
            raise
        raise names.unknown_source(str(source)) from error


def _read(path: Path, options: ReadOptions) -> LoadedData:
    if found := detect(path, FORMATS):
        format, place = found
        loaded = format.read(place, options)
        if place == path:
            return loaded
        note = f"read from {place.relative_to(path)}/, as nothing else is there"
        return replace(loaded, name=short_name(path), notes=(note, *loaded.notes))
    looked_for = "; ".join(candidate.name for candidate in FORMATS)
    raise DataError(
        f"{path} is {_description(path)}, in no supported format. Looked for: {looked_for}. "
        f"Or give one of the names {', '.join(names.NAMES)}"
    )


def _description(path: Path) -> str:
    if path.is_dir():
        found = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        return f"a folder with {some(found)}" if found else "an empty folder"
    return f"a {''.join(path.suffixes[-2:])} file" if path.suffix else "a file"


def _resized(loaded: LoadedData, side: int, options: ReadOptions, source: Path) -> LoadedData:
    """The images of an array format brought to the size asked for; a folder's already have it."""
    height, width, channels = loaded.splits.train.image_shape
    if (height, width) == (side, side):
        return loaded
    num_images = sum(len(dataset) for _, dataset in loaded.splits.items())
    what = f"{num_images:,} images of {side}x{side}"
    options.claim(num_images * side**2 * channels, what, source, scales=True)
    resized = {
        split: replace(dataset, images=fit_images(dataset.images, (side, side), channels, options.fit))
        for split, dataset in loaded.splits.items()
    }
    splits = SourceSplits(resized["train"], resized.get("val"), resized.get("test"))
    note = f"images of {width}x{height} brought to {side}x{side}: {HOW_FITTED[options.fit]}"
    return replace(loaded, splits=splits, notes=(*loaded.notes, note))


def _check_learnable(train: ImageDataset, source: str | Path) -> list[str]:
    """Raises DataError where there is nothing to tell apart; returns what should be told of the classes."""
    counts = train.class_counts()
    present = np.flatnonzero(counts)
    if len(present) < 2:
        only = f" ({train.class_names[present[0]]!r})" if len(present) else ""
        raise DataError(
            f"{source} has {len(present)} class{'' if len(present) == 1 else 'es'}{only} with images: "
            "a classifier needs at least two"
        )
    if all(np.array_equal(image, train.images[0]) for image in train.images):
        raise DataError(f"{source}: all {len(train):,} training images are the same: nothing tells them apart")
    notes = []
    few = min(FEW_IMAGES, int(np.median(counts[present]) * FEW_SHARE))
    for least, most, what in ((1, 1, "one image, kept in train"), (2, few, f"{few} images or fewer")):
        names = [train.class_names[label] for label in np.flatnonzero((least <= counts) & (counts <= most))]
        if names:
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            notes.append(f"{'class' if len(names) == 1 else f'{len(names)} classes'} with {what}: {listed}")
    return notes
