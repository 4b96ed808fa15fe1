"""Decodes the encoded images of a source into one uint8 array per split.

A first pass reads all headers, which determine the working size and the channels; a second decodes each image once.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from timebox.data.arrays.decoded_cache import CacheWriter, FileFingerprint, cache_key
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits, relabel
from timebox.data.folders.names import SPLITS
from timebox.data.images.decode import (
    CHANNEL_MODES,
    FIT_DESCRIPTIONS,
    WHITE_16BIT,
    ImageHeader,
    decode_image,
    largest_16bit_value,
    read_header,
    white_of,
)
from timebox.data.reading.options import DEFAULT_MAX_SIDE, ProgressNotifier, ReadOptions
from timebox.data.reading.text import abbreviate_list, pluralize, short_name, sort_naturally
from timebox.errors import DataError, OutputError, option_text
from timebox.machine import available_memory, available_threads

MIN_SIDE = 8  # pixels, of a working size chosen by working_side

# Decoding this many pixels takes a few seconds; sources with more are cached.
MIN_CACHED_PIXELS = 300_000_000

# The note where the cache cannot be written to; the data are read all the same.
NOT_KEPT = "decoded images are not kept for the next run: {}"
_MAX_IMAGES_PER_TASK, _TASKS_PER_THREAD = 64, 8

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
    max_side = options.max_side(len(images))
    key = _cache_key(images, options, max_side) if options.cache else ""
    if options.cache and (cached := options.cache.find(key)):
        _check_failures(path, len(images), cached.bad_files, options.max_bad_share)
        note = "decoded by an earlier run: read from the cache"
        return replace(cached, name=short_name(path), notes=(*cached.notes, note))
    headers, failures = _read_headers(images, options)
    _check_failures(path, len(images), _bad_files(images, failures), options.max_bad_share)
    readable_headers = [header for header in headers if header]
    channels = 1 if all(header.is_grey for header in readable_headers) else 3
    found_white = _find_white(images, headers, options)
    white = options.white_16bit or found_white
    sizes = [(header.width, header.height) for header in readable_headers]
    side = options.image_size or working_side(sizes, max_side)
    num_bytes = len(readable_headers) * side**2 * channels
    with _cache_writer(key, readable_headers, num_bytes, options) as writer:
        if writer is None:
            description = f"{len(readable_headers):,} images of {side}x{side}"
            options.check_memory(num_bytes, description, path, is_resized=True)
        datasets: dict[str, ImageDataset] = {}
        for split in SPLITS:
            if indices := [i for i, image in enumerate(images) if image.split == split and headers[i]]:
                shape = (len(indices), side, side, channels)
                pixels = _allocate(split, shape, writer, options)
                datasets[split] = _decode(
                    images, indices, pixels, failures, replace(options, white_16bit=white), class_order
                )
        bad_files = _bad_files(images, failures)
        _check_failures(path, len(images), bad_files, options.max_bad_share)
        decoded_headers = [header for i, header in enumerate(headers) if header and i not in failures]
        all_sizes = dict(Counter(f"{header.width}x{header.height}" for header in decoded_headers).most_common())
        modes = dict(Counter(header.mode for header in decoded_headers).most_common())
        notes = (
            *_resize_notes(all_sizes, modes, side, channels, options.fit),
            *_misnamed_notes(images, headers),
            *_white_notes(white, found_white, headers),
        )
        described = format_name + (f" in {', '.join(datasets)}" if len(datasets) > 1 else "")
        splits = _align_splits(path, datasets, options.class_names)
        loaded = LoadedData(short_name(path), described, splits, bad_files, all_sizes, modes, notes, white_16bit=white)
        if writer is None:
            return loaded
        writer.commit(loaded)
    # Map the images from the committed entry; where committing failed, the arrays of `loaded` are still valid.
    cached = options.cache.find(key) if options.cache else None
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

    listed = [(image.name, image.split, image.class_name) for image in images]
    settings = (
        options.image_size, options.fit, max_side, MIN_SIDE, PIL.__version__, options.archive, options.white_16bit,
        options.class_names, listed,
    )  # fmt: skip
    return cache_key([content_of(image) for image in images], settings)


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


def _read_headers(
    images: Sequence[EncodedImage], options: ReadOptions
) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """(header of each image, None where unreadable; reason of each failure by index)."""
    headers: list[ImageHeader | None] = [None] * len(images)

    def task(index: int) -> None:
        headers[index] = read_header(images[index].file())

    return headers, _for_each(task, range(len(images)), "looked at", options)


def _find_white(images: Sequence[EncodedImage], headers: Sequence[ImageHeader | None], options: ReadOptions) -> int:
    """The value of 16-bit grey images that becomes white: see :func:`white_of`."""
    indices = [index for index, header in enumerate(headers) if header and header.is_16bit]
    largest = [0] * len(indices)

    def task(position: int) -> None:
        largest[position] = largest_16bit_value(images[indices[position]].file())

    _for_each(task, range(len(indices)), "measured", options)
    return white_of(max(largest, default=0))


def _decode(
    images: Sequence[EncodedImage],
    indices: list[int],
    pixels: NDArray[np.uint8],
    failures: dict[int, str],
    options: ReadOptions,
    class_order: ClassOrder,
) -> ImageDataset:
    """Decode the images at `indices` into the first rows of `pixels`; unreadable ones are added to `failures`."""
    height, width, channels = pixels.shape[1:]

    def task(row: int) -> None:
        pixels[row] = decode_image(
            images[indices[row]].file(), (height, width), channels, options.fit, options.white_16bit or WHITE_16BIT
        )

    bad_rows = _for_each(task, range(len(indices)), "read", options)
    failures.update({indices[row]: reason for row, reason in bad_rows.items()})
    good_rows = [row for row in range(len(indices)) if row not in bad_rows]
    good = [indices[row] for row in good_rows]
    if bad_rows:  # close the gaps in place: a second array of this size may not fit into memory
        for target, row in enumerate(good_rows):
            pixels[target] = pixels[row]
    names = tuple(class_order(sorted({images[index].class_name for index in good})))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[images[index].class_name] for index in good], dtype=np.int64)
    return ImageDataset(pixels[: len(good)], labels, names, tuple(images[index].name for index in good))


def _for_each(task: Callable[[int], None], indices: range, verb: str, options: ReadOptions) -> dict[int, str]:
    """Run task(index) in threads; Pillow releases the GIL. Returns the reason of each DataError by index."""
    failures: dict[int, str] = {}
    notify = ProgressNotifier(options.notify)

    def run(chunk: range) -> int:
        for index in chunk:
            try:
                task(index)
            except DataError as error:
                failures[index] = str(error)
        return len(chunk)

    size = max(1, min(_MAX_IMAGES_PER_TASK, len(indices) // (_TASKS_PER_THREAD * available_threads())))
    chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
    num_done = 0
    with ThreadPoolExecutor(available_threads()) as pool:
        for number in pool.map(run, chunks):
            num_done += number
            notify(f"{verb} {num_done:,} of {len(indices):,} images")
    return failures


def _check_failures(path: Path, num_images: int, bad_files: Sequence[BadFile], max_bad_share: float) -> None:
    """Raise DataError where more images failed than max_bad_share allows, or all."""
    share = len(bad_files) / num_images
    if share > max_bad_share or share == 1:
        first = "; ".join(f"{bad.path}: {bad.reason}" for bad in bad_files[:3])
        allowed = f", more than max_bad_share = {max_bad_share:g} allows" if share > max_bad_share else ""
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


def _resize_notes(sizes: dict[str, int], modes: dict[str, int], side: int, channels: int, fit: str) -> Iterator[str]:
    if list(sizes) != [f"{side}x{side}"]:
        common = abbreviate_list([f"{size} ({number:,})" for size, number in sizes.items()])
        resized = f"{side}x{side}: {FIT_DESCRIPTIONS[fit]}"
        yield f"images of {pluralize(len(sizes), 'size')} ({common}) resized to {resized}"
    mode = CHANNEL_MODES[channels]
    if list(modes) != [mode]:
        listed = ", ".join(f"{name} ({number:,})" for name, number in modes.items())
        yield f"images of mode {listed} converted to {mode}, transparent pixels on a white background"


def _white_notes(white: int, found: int, headers: Sequence[ImageHeader | None]) -> Iterator[str]:
    """Notes on 16-bit images; `found` is the white that their values suggest."""
    num_images = sum(header is not None and header.is_16bit for header in headers)
    if num_images and found > white:
        yield f"16-bit images hold values above {white:,}, which is white for this model: they become white too"
    elif num_images and white < WHITE_16BIT:
        yield (
            f"{pluralize(num_images, 'image')} of 16 bits hold values of {white.bit_length()} bits: {white:,} becomes "
            "white, in every image of this model"
        )


def _misnamed_notes(images: Sequence[EncodedImage], headers: list[ImageHeader | None]) -> Iterator[str]:
    pairs = zip(images, headers, strict=True)
    if misnamed := [(image, header.misnamed_as) for image, header in pairs if header and header.misnamed_as]:
        image, true_format = misnamed[0]
        yield (
            f"{pluralize(len(misnamed), 'file')} not of the format the suffix says ({image.name} is {true_format}): "
            "read by content"
        )
