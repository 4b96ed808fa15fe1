"""A folder of class folders, with or without train/ val/ test/ above them; images of any size and mode.

Two passes: the headers of all files settle the working size, the channels and what is hopeless; then each file is
decoded once, straight into its row of the one array.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from timebox.data.conforming import relabel
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, Splits
from timebox.data.decoding import IMAGE_SUFFIXES, ImageHeader, decode_image, read_header
from timebox.data.formats.base import ReadOptions, Throttle, natural_order, printable, short_name
from timebox.errors import DataError
from timebox.machine import available_threads

MAX_SIDE, MIN_SIDE = 64, 8  # of the working size chosen here; image_size may go beyond

_SPLIT_OF = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_FILES_PER_TASK = 64


@dataclass(frozen=True, slots=True)
class _File:
    """An image file: where it lies, and the split and class its folders give it."""

    path: Path
    split: str
    class_name: str


class Folder:
    name = "a folder of class folders (photos/cat/1.jpg, photos/dog/2.png), with or without train/ val/ test/ above"

    def matches(self, path: Path) -> bool:
        return path.is_dir() and bool(_folders(path))

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        folders = _split_folders(path)
        files = [file for split, folder in folders.items() for file in _class_files(folder, split)]
        if not any(file.split == "train" for file in files):
            raise DataError(f"{path} holds no images in class folders: put them as {path}/CLASS/IMAGE.jpg")
        headers, failures = _read_headers(files, options)
        _check_failures(path, files, failures, options.max_bad_share)
        side, channels = _working_form([header for header in headers if header], options.image_size)
        num_images = sum(header is not None for header in headers)
        what = f"{num_images:,} images of {side}x{side}"
        options.claim(num_images * side**2 * channels, what, path, scales=True)
        readable: dict[str, ImageDataset] = {}
        for split in ("train", "val", "test"):
            chosen = [i for i, file in enumerate(files) if file.split == split and headers[i]]
            if chosen:
                readable[split] = _decode(path, files, chosen, side, channels, failures, options)
        _check_failures(path, files, failures, options.max_bad_share)
        splits = _splits(path, readable)
        known = [header for i, header in enumerate(headers) if header and i not in failures]
        return LoadedData(
            name=short_name(path),
            format="folder of class folders" + (f" in {', '.join(readable)}" if len(readable) > 1 else ""),
            splits=splits,
            bad_files=tuple(BadFile(_id(path, files[i]), failures[i]) for i in sorted(failures)),
            sizes=dict(Counter(f"{header.width}x{header.height}" for header in known).most_common()),
            modes=dict(Counter(header.mode for header in known).most_common()),
            notes=(
                *_layout_notes(path, folders, splits.train.class_names),
                *_form_notes(known, side, channels),
                *_misnamed_notes(path, files, headers),
            ),
        )


def _split_folders(path: Path) -> dict[str, Path]:
    """The folder of each split: `path` itself where its folders are classes, one of which may be called "train"."""
    found: dict[str, Path] = {}
    others: list[Path] = []
    for folder in _folders(path):
        split = _SPLIT_OF.get(folder.name.lower())
        if split is None:
            if next(_image_paths(folder), None):
                others.append(folder)
        elif split in found:
            raise DataError(f"{path} has {found[split].name}/ and {folder.name}/, both of which mean {split}: keep one")
        else:
            found[split] = folder
    if not found or any(_holds_images(folder) for folder in others):
        return {"train": path}
    if "train" not in found or not _folders(found["train"]):
        if others:
            return {"train": path}
        lacking = f"class folders in {found['train'].name}/" if "train" in found else "train/ to learn from"
        raise DataError(f"{path} has {'/ and '.join(folder.name for folder in found.values())}/ but no {lacking}")
    return dict(sorted(found.items(), key=lambda item: ("train", "val", "test").index(item[0])))


def _class_files(folder: Path, split: str) -> Iterator[_File]:
    """The images under each class folder, however deep, class by class and then by name."""
    for class_folder in _folders(folder):
        for path in _image_paths(class_folder):
            yield _File(path, split, printable(class_folder.name))


def _image_paths(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            if _is_image(name):
                yield Path(parent, name)


def _raise(error: OSError) -> NoReturn:
    """A folder that cannot be listed must not pass for an empty one."""
    raise error


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _holds_images(folder: Path) -> bool:
    return any(_is_image(entry.name) for entry in _entries(folder) if entry.is_file())


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_image(name: str) -> bool:
    return not _is_hidden(name) and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _id(path: Path, file: _File) -> str:
    return printable(file.path.relative_to(path).as_posix())


def _read_headers(files: list[_File], options: ReadOptions) -> tuple[list[ImageHeader | None], dict[int, str]]:
    """Each file's header, None where it has none, and the reasons by file index."""
    headers: list[ImageHeader | None] = [None] * len(files)

    def task(index: int) -> None:
        headers[index] = read_header(files[index].path)

    return headers, _for_each(task, range(len(files)), "looked at", options)


def _decode(
    path: Path,
    files: list[_File],
    chosen: list[int],
    side: int,
    channels: int,
    failures: dict[int, str],
    options: ReadOptions,
) -> ImageDataset:
    """The chosen files' pixels and classes; files that fail are added to `failures` and left out."""
    images = np.empty((len(chosen), side, side, channels), dtype=np.uint8)

    def task(row: int) -> None:
        images[row] = decode_image(files[chosen[row]].path, (side, side), channels)

    bad_rows = _for_each(task, range(len(chosen)), "read", options)
    failures.update({chosen[row]: reason for row, reason in bad_rows.items()})
    good = [index for row, index in enumerate(chosen) if row not in bad_rows]
    kept = 0  # close the gaps in place: a second array of this size may not fit into memory
    for row in range(len(chosen)) if bad_rows else ():
        if row not in bad_rows:
            images[kept] = images[row]
            kept += 1
    names = natural_order(sorted({files[index].class_name for index in good}))
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[files[index].class_name] for index in good], dtype=np.int64)
    return ImageDataset(images[: len(good)], labels, tuple(names), tuple(_id(path, files[index]) for index in good))


def _for_each(task: Callable[[int], None], indices: range, verb: str, options: ReadOptions) -> dict[int, str]:
    """task(index) in threads, which pays because Pillow decodes outside the GIL. Returns the reasons of those that
    raised DataError."""
    failures: dict[int, str] = {}
    tell = Throttle(options.progress)

    def run(chunk: range) -> int:
        for index in chunk:
            try:
                task(index)
            except DataError as error:
                failures[index] = str(error)
        return len(chunk)

    chunks = [indices[start : start + _FILES_PER_TASK] for start in range(0, len(indices), _FILES_PER_TASK)]
    done = 0
    with ThreadPoolExecutor(available_threads()) as pool:
        for count in pool.map(run, chunks):
            done += count
            tell(f"{verb} {done:,} of {len(indices):,} image files")
    return failures


def _check_failures(path: Path, files: list[_File], failures: dict[int, str], max_bad_share: float) -> None:
    """Raises DataError where more files failed than are allowed, or all."""
    share = len(failures) / len(files)
    if share > max_bad_share or share == 1:
        first = "; ".join(f"{_id(path, files[index])}: {failures[index]}" for index in sorted(failures)[:3])
        allowed = f", more than max_bad_share = {max_bad_share:g} allows" if share > max_bad_share else ""
        raise DataError(
            f"{path}: {len(failures):,} of {len(files):,} image files ({share:.1%}) are unreadable{allowed}; "
            f"the first: {first}"
        )


def _working_form(headers: list[ImageHeader], image_size: int | None) -> tuple[int, int]:
    """The side of the square all images are brought to, and their channels: grey only if all are."""
    channels = 1 if all(header.is_grey for header in headers) else 3
    if image_size is not None:
        return image_size, channels
    sizes = {(header.width, header.height) for header in headers}
    width, height = next(iter(sizes))
    if len(sizes) == 1 and width == height and MIN_SIDE <= width <= MAX_SIDE:
        return width, channels
    median = int(np.median([min(header.width, header.height) for header in headers]))
    return min(MAX_SIDE, max(MIN_SIDE, median // 8 * 8)), channels


def _splits(path: Path, readable: dict[str, ImageDataset]) -> Splits:
    """All splits with train's classes; a class without a readable image in train is no class."""
    if "train" not in readable or not len(readable["train"]):
        raise DataError(f"{path}: not one training image could be read")
    train = readable["train"]
    held_out = {
        split: relabel(dataset, train.class_names, f"{path}: {split}")
        for split, dataset in readable.items()
        if split != "train" and len(dataset)
    }
    return Splits(train, held_out.get("val"), held_out.get("test"))


def _layout_notes(path: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> Iterator[str]:
    """What was passed over."""
    train = folders["train"]
    if stray := [entry.name for entry in _entries(train) if entry.is_file() and _is_image(entry.name)]:
        yield f"{_count(len(stray), 'image')} outside any class folder left out: {_some(stray)}"
    names = [printable(folder.name) for folder in _folders(train)]
    if empty := [name for name in names if name not in class_names]:
        yield f"{_count(len(empty), 'class folder')} without a readable training image left out: {_some(empty)}"
    if train != path and (beside := [folder.name for folder in _folders(path) if folder not in folders.values()]):
        yield f"{_count(len(beside), 'folder')} beside {train.name}/ left out: {_some(beside)}"


def _form_notes(headers: list[ImageHeader], side: int, channels: int) -> Iterator[str]:
    sizes = Counter(f"{header.width}x{header.height}" for header in headers)
    if list(sizes) != [f"{side}x{side}"]:
        common = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(3))
        yield (
            f"images of {_count(len(sizes), 'size')} ({common}{', ...' if len(sizes) > 3 else ''}) brought to "
            f"{side}x{side}: the shorter side scaled, the middle kept"
        )
    modes = Counter(header.mode for header in headers)
    mode = {1: "L", 3: "RGB"}[channels]
    if list(modes) != [mode]:
        found = ", ".join(f"{name} ({count:,})" for name, count in modes.most_common())
        yield f"images of mode {found} brought to {mode}, any transparency laid on white"


def _misnamed_notes(path: Path, files: list[_File], headers: list[ImageHeader | None]) -> Iterator[str]:
    pairs = zip(files, headers, strict=True)
    if misnamed := [(file, header.misnamed_as) for file, header in pairs if header and header.misnamed_as]:
        file, true_format = misnamed[0]
        yield (
            f"{_count(len(misnamed), 'file')} not of the format the suffix says ({_id(path, file)} is {true_format}): "
            "read by content"
        )


def _some(names: list[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
