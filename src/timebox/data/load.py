"""load_data: reads a data set from a path or a name, whatever its format."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from timebox.data import named_datasets as names
from timebox.data.arrays.decoded_cache import DecodedCache
from timebox.data.dataset import ImageDataset, LoadedData, SourceSplits
from timebox.data.folders.names import SPLITS, is_archive_name, is_system_name
from timebox.data.formats import FORMATS, detect
from timebox.data.images.decode import CROP, FIT_DESCRIPTIONS, fit_images
from timebox.data.part import PartRead
from timebox.data.reading.array_splits import loaded_from_arrays
from timebox.data.reading.downloaded import check_downloaded, foreign_file
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, short_name
from timebox.data.reading.time_limit import ReadingTime, Stage
from timebox.errors import DataError, TimeboxError, UsageError
from timebox.files.folders import kind_of
from timebox.paths import expand_user

# A class with at most this many images, and at most this fraction of the median class, gets a note.
MAX_FEW_IMAGES, MAX_FEW_FRACTION = 9, 0.2
# Images are called nearly black where not one pixel in a thousand is as bright as this, of 255.
DARK, MAX_SAMPLED_IMAGES = 32, 100
# The source that errors and records show for images that were not read from a file.
IN_MEMORY = "images in memory"


def load_data(
    source: str | Path,
    *,
    image_size: int | None = None,
    coarse: bool = False,
    data_dir: Path | None = None,
    max_bad_share: float = 0.1,
    download: bool = True,
    num_copies: int = 1,
    notify: Callable[[str], None] | None = None,
    cache: bool = True,
    fit: str = CROP,
    max_side: Callable[[int], int] | None = None,
    splits: Collection[str] = SPLITS,
    class_depth: int | None = None,
    class_names: Sequence[str] | None = None,
    white_16bit: int | None = None,
    time: ReadingTime | None = None,
    part: PartRead | None = None,
) -> LoadedData:
    """Read a data set, whatever its format.

    Args:
        source: a path, or one of the names cifar10, cifar100, mnist, digits. A str equal to a name is the name in every
            directory; "./mnist" or a Path is the path.
        image_size: side in pixels, 1 or more, of the square images to return. None keeps array formats at their size;
            encoded images keep theirs if all are squares of one size from 8 to ``max_side`` pixels, else they become
            squares of the median shorter side, rounded down to a multiple of 8, within these limits.
        coarse: read the 20 superclasses of CIFAR-100, or the coarser label column of a table.
        data_dir: the first directory that is searched for a named data set, and its download directory.
        max_bad_share: 0..1, the largest tolerated fraction of unreadable image files.
        download: whether a named data set that is not on this machine may be downloaded.
        num_copies: number of copies of the images that the caller will hold in memory: 2 where it cuts splits.
        notify: called with progress messages, at most one a second.
        cache: keep images that take seconds to decode, or much memory, on disk for the next run: in the folder that
            TIMEBOX_CACHE names, else in the user's cache.
        fit: ``crop`` scales the shorter side to the square and keeps the centre, ``letterbox`` scales the longer side
            and pads with black.
        max_side: function from the number of images to the largest side in pixels, 8 or more, that is chosen where
            image_size is None; 64 by default.
        splits: the splits that are used; others may be missing from the result, and are not checked.
        class_depth: 1 where class folders lie in the source or its splits, 2 where they lie in the folders there. None
            to find it.
        class_names: the classes of a model that is to be scored on the data, which may lack some of them, or a train
            split; None for data to train on.
        white_16bit: the value of 16-bit grey images that becomes 255, 1..65535. None: the largest that the bits in use
            can hold.
        time: in which the data must be read; None for no limit.
        part: read the part of the images that an earlier run had time for.
    Raises:
        DataError: for data that cannot be read, cannot be learned from, or do not fit into memory.
        BudgetError: for data that cannot be read in time.
        UsageError: for an argument out of range.
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"image_size {image_size} must be at least 1 pixel")
    if not 0 <= max_bad_share <= 1:
        raise UsageError(f"max_bad_share {max_bad_share:g} must lie in 0..1: it is a share of the image files")
    options = ReadOptions(image_size, coarse, max_bad_share, notify or (lambda text: None), num_copies, fit=fit)
    options = replace(
        options,
        wanted_splits=frozenset(splits),
        class_depth=class_depth,
        class_names=None if class_names is None else tuple(class_names),
        white_16bit=white_16bit,
        time=time or ReadingTime(),
        part=part,
    )
    options.time.source = str(source)
    options = options if max_side is None else replace(options, max_side=max_side)
    if source in names.NAMES:
        loaded = _load_named(str(source), options, data_dir, download)
    else:
        loaded = _load_path(source, replace(options, cache=DecodedCache()) if cache else options)
    if coarse and not any(known in loaded.format for known in ("CIFAR-100", "table")):
        raise UsageError(f"coarse asks for CIFAR-100's superclasses, but {source} holds {loaded.format}")
    if image_size is not None:
        loaded = _resize(loaded, image_size, options, Path(source))
    if class_names is not None:
        return loaded
    return replace(loaded, notes=(*loaded.notes, *_check_learnable(loaded.splits.train, source)))


def load_images_in_memory(
    dataset: ImageDataset,
    image_size: int | None = None,
    num_copies: int = 1,
    fit: str = CROP,
    time: ReadingTime | None = None,
) -> LoadedData:
    """LoadedData of images that are already in memory. Arguments and errors are those of load_data."""
    loaded = loaded_from_arrays("images", IN_MEMORY, SourceSplits(dataset), "they were passed as arrays")
    if image_size is not None:
        options = ReadOptions(image_size, num_copies=num_copies, fit=fit, time=time or ReadingTime())
        options.time.source = IN_MEMORY
        loaded = _resize(loaded, image_size, options, Path(IN_MEMORY))
    return replace(loaded, notes=(*loaded.notes, *_check_learnable(loaded.splits.train, IN_MEMORY)))


def _load_named(name: str, options: ReadOptions, data_dir: Path | None, allow_download: bool) -> LoadedData:
    shadowed = (f"{name} is read as the data set of that name, not as ./{name}",) if Path(name).exists() else ()
    if name == "digits":
        return replace(names.read_digits(), notes=shadowed)
    with options.time.paused():
        path, seconds = names.locate(name, data_dir=data_dir, allow_download=allow_download, notify=options.notify)
    loaded = _read(path, options)
    name = f"{name}-coarse" if options.coarse else name
    return replace(loaded, name=name, notes=(*loaded.notes, *shadowed), download_seconds=seconds)


def _load_path(source: str | Path, options: ReadOptions) -> LoadedData:
    try:
        path = Path(expand_user(source))
        if not path.exists():
            raise names.unknown_source(str(source))
        if path.is_file():
            check_downloaded(path)
        elif not path.is_dir():
            raise DataError(f"{source} is a {kind_of(path.stat().st_mode)}: give a folder or a file of images")
        return _read(path, options)
    except TimeboxError:
        raise
    except OSError as error:  # no permission, name too long, circular links, ...
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{error.filename or source}: {reason}") from error


def _read(path: Path, options: ReadOptions) -> LoadedData:
    if match := detect(path, FORMATS):
        format, inner = match
        loaded = format.read(inner, options)
        if inner == path:
            return loaded
        note = f"read from {inner.relative_to(path)}/, as nothing else is there"
        return replace(loaded, name=short_name(path), notes=(note, *loaded.notes))
    if path.is_file() and (what := foreign_file(path)):
        raise DataError(f"{path} is {what}")
    known_formats = ", ".join(candidate.name for candidate in FORMATS)
    raise DataError(
        f"{path} is {_description(path)}, in no supported format. Looked for: {known_formats}; or give one of the "
        f"names {', '.join(names.NAMES)}"
    )


def _description(path: Path) -> str:
    if path.is_dir():
        content = sorted(entry.name for entry in path.iterdir() if not is_system_name(entry.name))
        if archives := [name for name in content if is_archive_name(name)]:
            return f"a folder with {abbreviate_list(archives)}, which must be unpacked or given alone,"
        return f"a folder with {abbreviate_list(content)}" if content else "an empty folder"
    return f"a {''.join(path.suffixes[-2:])} file" if path.suffix else "a file"


def _resize(loaded: LoadedData, side: int, options: ReadOptions, source: Path) -> LoadedData:
    """Resize the images of an array format; encoded images already have the requested size."""
    height, width, channels = loaded.splits.train.image_shape
    if (height, width) == (side, side):
        return loaded
    num_images = loaded.splits.num_images
    description = f"{num_images:,} images of {side}x{side}"
    options.check_memory(num_images * side**2 * channels, description, source, is_resized=True)
    stage = Stage(options.time, lambda done: f"resized {done:,} of {num_images:,} images", num_images)
    resized: dict[str, ImageDataset] = {}
    num_before = 0
    for split, dataset in loaded.splits.items():

        def advance(done: int, num_before: int = num_before) -> None:
            stage.advance(num_before + done)

        images = fit_images(dataset.images, (side, side), channels, options.fit, advance)
        resized[split], num_before = replace(dataset, images=images), num_before + len(dataset)
    note = f"images of {width}x{height} resized to {side}x{side}: {FIT_DESCRIPTIONS[options.fit]}"
    return replace(loaded, splits=SourceSplits(**resized), notes=(*loaded.notes, note))


def _check_learnable(train: ImageDataset, source: str | Path) -> list[str]:
    """Notes on very small classes. Raises DataError for fewer than two classes, or images that are all the same."""
    counts = train.class_counts()
    present = np.flatnonzero(counts)
    if len(present) < 2:
        name = f" ({train.class_names[present[0]]!r})" if len(present) else ""
        raise DataError(
            f"{source} has {len(present)} class{'' if len(present) == 1 else 'es'}{name} with images: "
            "a classifier needs at least two"
        )
    if all(np.array_equal(image, train.images[0]) for image in train.images):
        raise DataError(f"{source}: all {len(train):,} training images are the same: nothing tells them apart")
    notes = []
    sample = train.images[:: max(1, len(train) // MAX_SAMPLED_IMAGES), ::4, ::4]
    values, numbers = np.unique(sample, return_counts=True)
    brightest = int(values[np.searchsorted(np.cumsum(numbers), 0.999 * sample.size)])
    if brightest < DARK:
        notes.append(
            f"the images are nearly black: hardly a pixel is above {brightest} of 255; save pixels of other ranges, "
            "such as 12 bits, with 8 bits"
        )
    few = min(MAX_FEW_IMAGES, int(np.median(counts[present]) * MAX_FEW_FRACTION))
    for least, most, size in ((1, 1, "one image, kept in train"), (2, few, f"{few} images or fewer")):
        small = [train.class_names[label] for label in np.flatnonzero((least <= counts) & (counts <= most))]
        if small:
            described = "class" if len(small) == 1 else f"{len(small)} classes"
            notes.append(f"{described} with {size}: {abbreviate_list(small, 5)}")
    return notes
