"""Encoded images, wherever they lie, to the one array they are trained from.

Two passes: the headers of all settle the working size, the channels and what is hopeless; then each image is decoded
once, straight into its row.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray

from timebox.data.align_labels import relabel
from timebox.data.arrays.decoded_cache import Draft, Identity, key_of
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.data.formats.base import USUAL_SIDE, ReadOptions, Throttle
from timebox.data.images.decode import HOW_FITTED, ImageHeader, decode_image, read_header
from timebox.data.reading.listing import SPLITS
from timebox.data.reading.wording import count, natural_order, short_name
from timebox.errors import DataError
from timebox.machine import available_memory, available_threads

MIN_SIDE = 8  # pixels, of the working size chosen here

# Decoding so many pixels takes a few seconds: then they are kept for the next run.
PREPARED_PIXELS = 300_000_000

_MOST_IMAGES_PER_TASK, _TASKS_PER_THREAD = 64, 8


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that is not decoded yet.

    Args:
        name: its path relative to the source, or its row; it becomes the image's id.
        content: the file it lies in, or its bytes.
        split: "train", "val" or "test".
        class_name: its label.
    """

    name: str
    content: Path | memoryview
    split: str
    class_name: str

    def opened(self) -> Path | BinaryIO:
        """What Pillow reads it from."""
        return self.content if isinstance(self.content, Path) else io.BytesIO(self.content)


def load_encoded(
    path: Path,
    format_name: str,
    images: Sequence[EncodedImage],
    options: ReadOptions,
    class_order: Callable[[Sequence[str]], Sequence[str]] = natural_order,
) -> LoadedData:
    """Decode all images, at least one of which is of train.

    Args:
        path: the source, which errors speak of and the data are named after.
        class_order: sorts the names of the classes.
    Raises:
        DataError: where too many are unreadable, or they would not fit into memory.
    """
    largest_side = options.largest_side(len(images))
    key = _key(images, options, largest_side) if options.prepared else ""
    if options.prepared and (found := options.prepared.find(key)):
        _check_failures(path, len(images), found.bad_files, options.max_bad_share)
        note = "prepared by an earlier run: not decoded again"
        return replace(found, name=short_name(path), notes=(*found.notes, note))
    headers, failures = _read_headers(images, options)
    _check_failures(path, len(images), _bad_files(images, failures), options.max_bad_share)
    side, channels = _working_form([header for header in headers if header], options.image_size, largest_side)
    num_images = sum(header is not None for header in headers)
    with _drafted(key, headers, side**2 * channels, options) as draft:
        if draft is None:
            options.claim(num_images * side**2 * channels, f"{num_images:,} images of {side}x{side}", path, scales=True)
        readable: dict[str, ImageDataset] = {}
        for split in SPLITS:
            chosen = [i for i, image in enumerate(images) if image.split == split and headers[i]]
            if chosen:
                shape = (len(chosen), side, side, channels)
                pixels = draft.images(split, shape) if draft else np.empty(shape, np.uint8)
                readable[split] = _decode(images, chosen, pixels, failures, options, class_order)
        bad_files = _bad_files(images, failures)
        _check_failures(path, len(images), bad_files, options.max_bad_share)
        known = [header for i, header in enumerate(headers) if header and i not in failures]
        loaded = LoadedData(
            name=short_name(path),
            format=format_name + (f" in {', '.join(readable)}" if len(readable) > 1 else ""),
            splits=_splits(path, readable),
            bad_files=bad_files,
            sizes=dict(Counter(f"{header.width}x{header.height}" for header in known).most_common()),
            modes=dict(Counter(header.mode for header in known).most_common()),
            notes=(*_form_notes(known, side, channels, options.fit), *_misnamed_notes(images, headers)),
        )
        if draft is None:
            return loaded
        draft.keep(loaded)
    # From where it lies now; it stays as it was where keeping it failed.
    kept = options.prepared.find(key) if options.prepared else None
    return loaded if kept is None else replace(kept, name=loaded.name)


def _key(images: Sequence[EncodedImage], options: ReadOptions, largest_side: int) -> str:
    """The key under which these images are kept once they are prepared."""

    def identity(image: EncodedImage) -> Identity | bytes:
        if not isinstance(image.content, Path):
            return hashlib.blake2b(image.content, digest_size=16).digest()
        try:
            found = Identity.of(image.content, image.name)
        except (OSError, ValueError):  # no such file, or no such name
            return b"missing"
        return replace(options.origin, name=image.name, size=found.size) if options.origin else found

    listed = [(image.name, image.split, image.class_name) for image in images]
    choices = (options.image_size, options.fit, largest_side, MIN_SIDE, PIL.__version__, options.origin, listed)
    return key_of([identity(image) for image in images], choices)


@contextmanager
def _drafted(
    key: str, headers: Sequence[ImageHeader | None], bytes_per_image: int, options: ReadOptions
) -> Iterator[Draft | None]:
    """Where decoded images go that are worth keeping, as they take seconds to decode or much memory; else None."""
    known = [header for header in headers if header]
    num_bytes, available = len(known) * bytes_per_image, available_memory()
    slow = sum(header.width * header.height for header in known) > PREPARED_PIXELS
    large = available is not None and options.copies * num_bytes > available / 4
    if options.prepared is None or not (slow or large) or not options.prepared.has_room(options.copies * num_bytes):
        yield None
        return
    try:
        draft = options.prepared.draft(key)
    except OSError:  # a cache that cannot be written to is none
        yield None
        return
    try:
        yield draft
    finally:
        draft.drop()


def _bad_files(images: Sequence[EncodedImage], failures: Mapping[int, str]) -> tuple[BadFile, ...]:
    return tuple(BadFile(images[i].name, failures[i]) for i in sorted(failures))


def _read_headers(
    images: Sequence[EncodedImage], options: ReadOptions
) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """Each image's header, None where it has none, and the reasons by index."""
    headers: list[ImageHeader | None] = [None] * len(images)

    def task(index: int) -> None:
        headers[index] = read_header(images[index].opened())

    return headers, _for_each(task, range(len(images)), "looked at", options)


def _decode(
    images: Sequence[EncodedImage],
    chosen: list[int],
    pixels: NDArray[np.uint8],
    failures: dict[int, str],
    options: ReadOptions,
    class_order: Callable[[Sequence[str]], Sequence[str]],
) -> ImageDataset:
    """The chosen images' pixels, in the first rows of `pixels`, and their classes; those that fail are added to
    `failures` and left out."""
    height, width, channels = pixels.shape[1:]

    def task(row: int) -> None:
        pixels[row] = decode_image(images[chosen[row]].opened(), (height, width), channels, options.fit)

    bad_rows = _for_each(task, range(len(chosen)), "read", options)
    failures.update({chosen[row]: reason for row, reason in bad_rows.items()})
    good = [index for row, index in enumerate(chosen) if row not in bad_rows]
    kept = 0  # close the gaps in place: a second array of this size may not fit into memory
    for row in range(len(chosen)) if bad_rows else ():
        if row not in bad_rows:
            pixels[kept] = pixels[row]
            kept += 1
    names = tuple(class_order(sorted({images[index].class_name for index in good})))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[images[index].class_name] for index in good], dtype=np.int64)
    return ImageDataset(pixels[: len(good)], labels, names, tuple(images[index].name for index in good))


def _for_each(task: Callable[[int], None], indices: range, verb: str, options: ReadOptions) -> dict[int, str]:
    """task(index) in threads, which pays because Pillow decodes outside the GIL. Returns the reasons of those that
    raised DataError."""
    failures: dict[int, str] = {}
    notify = Throttle(options.progress)

    def run(chunk: range) -> int:
        for index in chunk:
            try:
                task(index)
            except DataError as error:
                failures[index] = str(error)
        return len(chunk)

    size = max(1, min(_MOST_IMAGES_PER_TASK, len(indices) // (_TASKS_PER_THREAD * available_threads())))
    chunks = [indices[start : start + size] for start in range(0, len(indices), size)]
    done = 0
    with ThreadPoolExecutor(available_threads()) as pool:
        for number in pool.map(run, chunks):
            done += number
            notify(f"{verb} {done:,} of {len(indices):,} images")
    return failures


def _check_failures(path: Path, num_images: int, bad_files: Sequence[BadFile], max_bad_share: float) -> None:
    """Raises DataError where more images failed than are allowed, or all."""
    share = len(bad_files) / num_images
    if share > max_bad_share or share == 1:
        first = "; ".join(f"{bad.path}: {bad.reason}" for bad in bad_files[:3])
        allowed = f", more than max_bad_share = {max_bad_share:g} allows" if share > max_bad_share else ""
        raise DataError(
            f"{path}: {len(bad_files):,} of {num_images:,} images ({share:.1%}) are unreadable{allowed}; "
            f"the first: {first}"
        )


def _working_form(headers: list[ImageHeader], image_size: int | None, largest_side: int) -> tuple[int, int]:
    """The side of the square all images are brought to, and their channels: grey only if all are."""
    channels = 1 if all(header.is_grey for header in headers) else 3
    sizes = [(header.width, header.height) for header in headers]
    return image_size or working_side(sizes, largest_side), channels


def working_side(sizes: Sequence[tuple[int, int]], largest_side: int = USUAL_SIDE) -> int:
    """The side in pixels of the squares that images of these sizes are brought to: their own, or the median shorter
    side, rounded down to a multiple of 8, from MIN_SIDE to ``largest_side``."""
    width, height = sizes[0]
    if len(set(sizes)) == 1 and width == height and MIN_SIDE <= width <= largest_side:
        return width
    median = int(np.median([min(size) for size in sizes]))
    return min(largest_side, max(MIN_SIDE, median // 8 * 8))


def _splits(path: Path, readable: dict[str, ImageDataset]) -> SourceSplits:
    """All splits with train's classes; a class without a readable image in train is no class."""
    if "train" not in readable or not len(readable["train"]):
        raise DataError(f"{path}: not one training image could be read")
    train = readable["train"]
    held_out = {
        split: relabel(dataset, train.class_names, f"{path}: {split}")
        for split, dataset in readable.items()
        if split != "train" and len(dataset)
    }
    return SourceSplits(train, held_out.get("val"), held_out.get("test"))


def _form_notes(headers: list[ImageHeader], side: int, channels: int, fit: str) -> Iterator[str]:
    sizes = Counter(f"{header.width}x{header.height}" for header in headers)
    if list(sizes) != [f"{side}x{side}"]:
        common = ", ".join(f"{size} ({number:,})" for size, number in sizes.most_common(3))
        yield (
            f"images of {count(len(sizes), 'size')} ({common}{', ...' if len(sizes) > 3 else ''}) brought to "
            f"{side}x{side}: {HOW_FITTED[fit]}"
        )
    modes = Counter(header.mode for header in headers)
    mode = {1: "L", 3: "RGB"}[channels]
    if list(modes) != [mode]:
        found = ", ".join(f"{name} ({number:,})" for name, number in modes.most_common())
        yield f"images of mode {found} brought to {mode}, any transparency laid on white"


def _misnamed_notes(images: Sequence[EncodedImage], headers: list[ImageHeader | None]) -> Iterator[str]:
    pairs = zip(images, headers, strict=True)
    if misnamed := [(image, header.misnamed_as) for image, header in pairs if header and header.misnamed_as]:
        image, true_format = misnamed[0]
        yield (
            f"{count(len(misnamed), 'file')} not of the format the suffix says ({image.name} is {true_format}): "
            "read by content"
        )
