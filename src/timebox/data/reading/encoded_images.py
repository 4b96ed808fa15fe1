"""Decodes the encoded images of a source into one uint8 array per split.

A first pass reads all headers, which determine the working size and the channels; a second decodes each image once.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from timebox.data.arrays.decoded_cache import CacheWriter, FileFingerprint, cache_key
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits, relabel
from timebox.data.folders.names import SPLITS
from timebox.data.folders.outside import find_outside_files
from timebox.data.images.decode import (
    WHITE_16BIT,
    ImageHeader,
    decode_image,
    largest_16bit_value,
    read_header,
    white_of,
)
from timebox.data.images.header_notes import misnamed_notes, resize_notes, white_notes
from timebox.data.part import PartRead, part_order
from timebox.data.reading.options import DEFAULT_MAX_SIDE, ReadOptions
from timebox.data.reading.text import short_name, sort_naturally
from timebox.data.reading.threads import NOT_IN_TIME, for_each, seconds_per_image
from timebox.errors import DataError, OutputError, option_text
from timebox.machine import available_memory

MIN_SIDE = 8  # pixels, of a working size chosen by working_side

# Decoding this many pixels takes a few seconds; sources with more are cached.
MIN_CACHED_PIXELS = 300_000_000

# The note where the cache cannot be written to; the data are read all the same.
NOT_KEPT = "decoded images are not kept for the next run: {}"

# Where a part may be read: the share of the time left that it is chosen for, and the number of images up to which all
# are tried.
_PART_SHARE, _MIN_IMAGES_FOR_PART = 0.7, 200

ClassOrder = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file, or the bytes of one, with its split ("train", "val" or "test") and label.

    `name`, its path relative to the source or its row in a table, becomes the image's id. `problem` says why it has no
    content, "" where it has.
    """

    name: str
    content: Path | memoryview
    split: str
    class_name: str
    problem: str = ""

    def file(self) -> Path | BinaryIO:
        """The path, or a binary stream of the bytes. Raises DataError where there is a problem."""
        if self.problem:
            raise DataError(self.problem)
        return self.content if isinstance(self.content, Path) else io.BytesIO(self.content)


def load_encoded(
    path: Path,
    format_name: str,
    images: Sequence[EncodedImage],
    options: ReadOptions,
    class_order: ClassOrder = sort_naturally,
) -> LoadedData:
    """Decode all images, at least one of train, resized to one working size; or read them from the cache.

    `path` is the source in errors and in the name of the data; `class_order` sorts class names. Raises DataError where
    too many images are unreadable, or they do not fit into memory.
    """
    loaded = _load(path, format_name, images, options, class_order)
    if options.archive:
        return loaded
    files = ((image.name, image.content) for image in images if isinstance(image.content, Path) and not image.problem)
    outside = find_outside_files(path, files, options.time.check)
    return replace(loaded, outside_files=outside, notes=(*loaded.notes, outside.sentence)) if outside else loaded


def _load(
    path: Path, format_name: str, images: Sequence[EncodedImage], options: ReadOptions, class_order: ClassOrder
) -> LoadedData:
    max_side = options.max_side(len(images))
    key = _cache_key(images, options, max_side) if options.cache else ""
    notifying = options.notify, options.time.check
    if options.cache and options.part is None and (cached := options.cache.find(key, *notifying)):
        _check_failures(path, len(images), cached.bad_files, options.max_bad_share)
        note = "decoded by an earlier run: read from the cache"
        return replace(cached, name=short_name(path), notes=(*cached.notes, note))
    num_total, (images, order) = len(images), _choose_part(images, options)
    # A part that was chosen for the time left may become smaller yet, where decoding takes longer than was measured.
    may_end = options.time.allow_partial
    later = cache(lambda: 0.0 if may_end else len(images) * _decoding_seconds(images, options))
    headers, failures = _read_headers(images, options, later)
    _check_failures(path, len(images), _bad_files(images, failures), options.max_bad_share)
    readable_headers = [header for header in headers if header]
    channels = 1 if all(header.is_grey for header in readable_headers) else 3
    found_white = _find_white(images, headers, options, later)
    white = options.white_16bit or found_white
    sizes = [(header.width, header.height) for header in readable_headers]
    side = options.image_size or working_side(sizes, max_side)
    num_bytes = len(readable_headers) * side**2 * channels
    with _cache_writer(key, readable_headers, num_bytes, options) as writer:
        if writer is None:
            description = f"{len(readable_headers):,} images of {side}x{side}"
            options.check_memory(num_bytes, description, path, is_resized=True)
        indices = {
            split: [i for i, image in enumerate(images) if image.split == split and headers[i]] for split in SPLITS
        }
        shape = (side, side, channels)
        targets = _Targets(
            {
                split: _allocate(split, (len(of_split), *shape), writer, options)
                for split, of_split in indices.items()
                if of_split
            },
            indices,
        )
        num_read, bad = _decode(images, order, targets, replace(options, white_16bit=white))
        part = _part_read(images, num_read, num_total, options)
        reached = set(order[:num_read])
        failures = {index: reason for index, reason in {**failures, **bad}.items() if index in reached}
        good = reached - failures.keys()
        datasets = {split: targets.dataset(split, images, good, class_order) for split in targets.pixels}
        bad_files = _bad_files(images, failures)
        _check_failures(path, num_read, bad_files, options.max_bad_share)
        decoded_headers = [header for i, header in enumerate(headers) if header and i in good]
        all_sizes = dict(Counter(f"{header.width}x{header.height}" for header in decoded_headers).most_common())
        modes = dict(Counter(header.mode for header in decoded_headers).most_common())
        notes = (
            *resize_notes(all_sizes, modes, side, channels, options.fit),
            *misnamed_notes([image.name for image in images], headers),
            *white_notes(white, found_white, headers),
        )
        described = format_name + (f" in {', '.join(datasets)}" if len(datasets) > 1 else "")
        splits = _align_splits(path, datasets, options.class_names)
        loaded = LoadedData(short_name(path), described, splits, bad_files, all_sizes, modes, notes, white_16bit=white)
        if writer is None or part or NOT_IN_TIME in failures.values():
            return replace(loaded, part=part)
        writer.commit(loaded)
    # Map the images from the committed entry; where committing failed, the arrays of `loaded` are still valid.
    cached = options.cache.find(key, *notifying) if options.cache else None
    return loaded if cached is None else replace(cached, name=loaded.name)


def _cache_key(images: Sequence[EncodedImage], options: ReadOptions, max_side: int) -> str:
    def content_of(image: EncodedImage) -> FileFingerprint | bytes:
        if not isinstance(image.content, Path):
            return hashlib.blake2b(image.content, digest_size=16).digest()
        try:
            fingerprint = FileFingerprint.of(image.content, image.name)
        except (OSError, ValueError):  # no such file, or not a valid name
            return b"missing"
        if options.archive:  # unpacked files are new in every run: their archive tells whether they have changed
            return replace(options.archive, name=image.name, size=fingerprint.size)
        return fingerprint

    contents = []
    for number, image in enumerate(images):
        if number % 256 == 0:
            options.time.check()
        contents.append(content_of(image))
    listed = [(image.name, image.split, image.class_name) for image in images]
    settings = (
        options.image_size, options.fit, max_side, MIN_SIDE, PIL.__version__, options.archive, options.white_16bit,
        options.class_names, listed,
    )  # fmt: skip
    return cache_key(contents, settings)


@contextmanager
def _cache_writer(
    key: str, headers: Sequence[ImageHeader], num_bytes: int, options: ReadOptions
) -> Iterator[CacheWriter | None]:
    """The writer of a new cache entry, for images that take seconds to decode or much memory; else None."""
    available, needed, writer = available_memory(), options.num_copies * num_bytes, None
    is_slow = sum(header.width * header.height for header in headers) > MIN_CACHED_PIXELS
    is_large = available is not None and needed > available / 4
    with ExitStack() as stack:
        if options.cache and (is_slow or is_large):
            try:
                writer = options.cache.begin_entry(key, needed)
                stack.callback(writer.discard)
            except OutputError as error:
                options.notify(NOT_KEPT.format(error))
        yield writer


def _allocate(
    split: str, shape: tuple[int, int, int, int], writer: CacheWriter | None, options: ReadOptions
) -> NDArray[np.uint8]:
    """Uninitialised images of a split: uint8 (N, H, W, C), in the cache entry, or else in memory.

    An entry that lacks a split is not completed.
    """
    if writer:
        try:
            return writer.allocate_images(split, shape)
        except OutputError as error:
            options.notify(NOT_KEPT.format(error))
    return np.empty(shape, np.uint8)


def _bad_files(images: Sequence[EncodedImage], failures: Mapping[int, str]) -> tuple[BadFile, ...]:
    return tuple(BadFile(images[i].name, failures[i]) for i in sorted(failures))


def _part_read(images: Sequence[EncodedImage], num_read: int, num_total: int, options: ReadOptions) -> PartRead | None:
    """The part that was read; None for all. Raises BudgetError where it lacks a class."""
    if options.time.allow_partial:
        options.time.extend()
    if num_read == num_total:
        return None
    if num_read < len({(image.split, image.class_name) for image in images}):
        options.time.whole_reason = "there is no time for an image of each class"
        raise options.time.refuse(options.time.used * (num_total / max(num_read, 1) - 1))
    return PartRead(num_read, num_total)


def _choose_part(images: Sequence[EncodedImage], options: ReadOptions) -> tuple[list[EncodedImage], list[int]]:
    """(the images to read, and the order to read them in): all, or the part that there is or was time for.

    Raises BudgetError where there is no time for an image of each class.
    """
    groups, time = [(image.split, image.class_name) for image in images], options.time
    if options.part is None and not time.allow_partial:
        return list(images), list(range(len(images)))
    order = part_order(groups).tolist()
    if options.part is not None:
        order = order[: options.part.images]
    elif len(images) > _MIN_IMAGES_FOR_PART:
        seconds = _decoding_seconds(images, options)
        num_affordable = int(_PART_SHARE * time.left / seconds)
        if num_affordable < min(len(set(groups)), len(images)):
            time.whole_reason = "there is no time for an image of each class"
            raise time.refuse(seconds * len(images) if seconds < inf else None)
        order = order[:num_affordable]
        time.whole_reason = "reading became slower than it was measured"
    kept = sorted(order)
    position_of = {index: position for position, index in enumerate(kept)}
    return [images[index] for index in kept], [position_of[index] for index in order]


def _decoding_seconds(images: Sequence[EncodedImage], options: ReadOptions) -> float:
    """Seconds of decoding an image, measured on some."""
    size = (options.image_size or DEFAULT_MAX_SIDE,) * 2
    return seconds_per_image(lambda image: decode_image(image.file(), size, 3, options.fit), images)


def _read_headers(
    images: Sequence[EncodedImage], options: ReadOptions, later: Callable[[], float]
) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """(header of each image, None where unreadable; reason of each failure by index)."""
    headers: list[ImageHeader | None] = [None] * len(images)
    done = for_each(lambda image: read_header(image.file()), headers.__setitem__, images, "looked at", options, later)
    return headers, done.failures


def _find_white(
    images: Sequence[EncodedImage],
    headers: Sequence[ImageHeader | None],
    options: ReadOptions,
    later: Callable[[], float],
) -> int:
    """The value of 16-bit grey images that becomes white: see :func:`white_of`."""
    measured = [image for image, header in zip(images, headers, strict=True) if header and header.is_16bit]
    largest = [0] * len(measured)
    for_each(lambda image: largest_16bit_value(image.file()), largest.__setitem__, measured, "measured", options, later)
    return white_of(max(largest, default=0))


@dataclass(frozen=True, eq=False)
class _Targets:
    """Where images are decoded to: an array uint8 (N, H, W, C) for each split, and the indices of its images."""

    pixels: dict[str, NDArray[np.uint8]]
    indices: dict[str, list[int]]

    def place(self) -> dict[int, tuple[NDArray[np.uint8], int]]:
        """Index of an image -> its array and row."""
        return {
            index: (self.pixels[split], row) for split in self.pixels for row, index in enumerate(self.indices[split])
        }

    def dataset(
        self, split: str, images: Sequence[EncodedImage], good: Collection[int], class_order: ClassOrder
    ) -> ImageDataset:
        """The good images of a split, moved to the first rows of its array."""
        pixels, indices = self.pixels[split], self.indices[split]
        good_rows = [row for row, index in enumerate(indices) if index in good]
        if len(good_rows) < len(indices):  # close the gaps in place: a second array may not fit into memory
            for target, row in enumerate(good_rows):
                pixels[target] = pixels[row]
        kept = [images[indices[row]] for row in good_rows]
        names = tuple(class_order(sorted({image.class_name for image in kept})))
        label_of = {name: label for label, name in enumerate(names)}
        labels = np.array([label_of[image.class_name] for image in kept], dtype=np.int64)
        return ImageDataset(pixels[: len(kept)], labels, names, tuple(image.name for image in kept))


def _decode(
    images: Sequence[EncodedImage], order: Sequence[int], targets: _Targets, options: ReadOptions
) -> tuple[int, dict[int, str]]:
    """Decode images in order: (how many of ``order`` were reached in time, why some are unreadable by index)."""
    place = targets.place()
    readable = [index for index in order if index in place]
    some = next(iter(targets.pixels.values()))
    (height, width), channels, white = some.shape[1:3], some.shape[3], options.white_16bit or WHITE_16BIT

    def store(position: int, image: NDArray[np.uint8]) -> None:
        pixels, row = place[readable[position]]
        pixels[row] = image

    done = for_each(
        lambda image: decode_image(image.file(), (height, width), channels, options.fit, white),
        store,
        [images[index] for index in readable],
        "read",
        options,
    )
    failures = {readable[position]: reason for position, reason in done.failures.items()}
    num_read = len(order) if done.num_images == len(readable) else order.index(readable[done.num_images])
    return num_read, failures


def _check_failures(path: Path, num_images: int, bad_files: Sequence[BadFile], max_bad_share: float) -> None:
    """Raise DataError where more images failed than max_bad_share allows, or all."""
    share = len(bad_files) / num_images
    if share > max_bad_share or share == 1:
        first = "; ".join(f"{bad.path}: {bad.reason}" for bad in bad_files[:3])
        allowed = f", more than {option_text('max_bad_share', max_bad_share)} allows" if share > max_bad_share else ""
        raise DataError(
            f"{path}: {len(bad_files):,} of {num_images:,} images ({share:.1%}) are unreadable{allowed}; "
            f"the first: {first}"
        )


def working_side(sizes: Sequence[tuple[int, int]], max_side: int = DEFAULT_MAX_SIDE) -> int:
    """The side in pixels of the squares that images of `sizes` (width, height), at least one, are resized to.

    See `image_size` of load_data.
    """
    width, height = sizes[0]
    if len(set(sizes)) == 1 and width == height and MIN_SIDE <= width <= max_side:
        return width
    median = int(np.median([min(size) for size in sizes]))
    return min(max_side, max(MIN_SIDE, median // 8 * 8))


def _align_splits(path: Path, datasets: dict[str, ImageDataset], class_names: tuple[str, ...] | None) -> SourceSplits:
    """All splits with `class_names`, or else with train's classes, which are those with a readable image in train."""
    train = datasets.get("train")
    if class_names is not None:  # data to score a model on need no train split
        first = next(iter(datasets.values()))
        train = relabel(first.take([]) if train is None else train, class_names, str(path))
    if train is None or (class_names is None and not len(train)):
        raise DataError(f"{path}: not one training image could be read")
    others = {split: dataset for split, dataset in datasets.items() if split != "train" and len(dataset)}
    for split, dataset in others.items():
        try:
            others[split] = relabel(dataset, train.class_names, f"{path}: {split}")
        except DataError as error:
            if class_names is not None:
                raise
            raise DataError(f"{error}. To leave that split out, set {option_text(split, 'none')}") from error
    return SourceSplits(train, **others)
