"""Labels of a val or test folder without class folders, from a file of names and labels in or beside it."""

import csv
import io
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from timebox.data.folders.names import split_of, words_of
from timebox.data.folders.tree import ImageFolder
from timebox.data.reading.encoded_images import EncodedImage
from timebox.data.reading.text import relative_name
from timebox.data.tables.files.table_memory import TableMemory
from timebox.errors import DataError
from timebox.files import read_regular
from timebox.formatting import plural

_SUFFIXES = frozenset({".txt", ".csv", ".tsv"})
_MAX_BYTES = 1 << 26
_MIN_NAMED = 0.5  # of the folder's images that a file must name


@dataclass(frozen=True, eq=False)
class Annotated:
    """Labelled images of a split, the file of their labels, and notes for the user."""

    file: Path
    images: list[EncodedImage]
    notes: list[str]


def annotated_images(
    folder: ImageFolder, root: ImageFolder, base: Path, split: str, class_names: Collection[str]
) -> Annotated | None:
    """The images of ``folder`` that a text file labels with classes of train; None where there is no such file.

    The names of images are relative to ``base``. Text files are looked for in ``folder`` and beside it, below ``root``.
    """
    by_name: dict[str, list[Path]] = {}
    for image in folder.all_images():
        by_name.setdefault(image.name, []).append(image)
        by_name.setdefault(image.stem, []).append(image)
    for path in _candidates(folder, root, split):
        labels = _labels(path, by_name, class_names)
        named = {name: label for name, label in labels.items() if len(by_name.get(name, ())) == 1}
        if len(named) < _MIN_NAMED * folder.num_images or not named:
            continue
        images = [
            EncodedImage(relative_name(file, base), file, split, label)
            for name, label in named.items()
            for file in by_name[name]
        ]
        where = relative_name(path, root.path)
        notes = [f"{where} has the labels of the {plural(len(images), 'image')} of {split}"]
        if rest := folder.num_images - len(images):
            notes.append(f"{plural(rest, 'image')} of {split} without a label in {where} left out")
        return Annotated(path, images, notes)
    return None


def _candidates(folder: ImageFolder, root: ImageFolder, split: str) -> Iterator[Path]:
    """Text files in the folder, then those above it whose name has the word of the split."""
    yield from (path for path in folder.others if path.suffix.lower() in _SUFFIXES)
    for place in root.walk():
        if place.num_images == 0 or place is root:
            for path in place.others:
                if path.suffix.lower() in _SUFFIXES and split in map(split_of, words_of(path.stem)):
                    yield path


def _labels(path: Path, by_name: Collection[str], class_names: Collection[str]) -> dict[str, str]:
    """Name of an image -> label, from the columns that hold most images and most classes; empty without such."""
    try:
        text = read_regular(path, _MAX_BYTES).decode("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    memory = TableMemory(path)
    rows: list[list[str]] = []
    try:
        for row in _rows(text):
            if len(row) > 1:
                memory.add(len(row), sum(map(len, row)))
                rows.append([cell.strip() for cell in row])
    except csv.Error:  # a cell of over 131,072 characters, as a quotation mark that is never closed makes one
        return {}
    width = max(map(len, rows), default=0)
    memory.check(width * len(rows))
    columns = [[row[index] if index < len(row) else "" for row in rows] for index in range(width)]
    names = _best([[_file_name(cell) for cell in column] for column in columns], by_name)
    labels = _best(columns, class_names)
    if names is None or labels is None:
        return {}
    pairs = zip(names, labels, strict=True)
    return {name: label for name, label in pairs if name in by_name and label in class_names}


def _rows(text: str) -> Iterator[list[str]]:
    """Cells separated by tabs, commas, semicolons or spaces: whichever the first line has."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    for separator in "\t,;":
        if separator in first:
            yield from csv.reader(io.StringIO(text, newline=None), delimiter=separator, skipinitialspace=True)
            return
    yield from (re.split(r"\s+", line.strip()) for line in text.splitlines())


def _file_name(cell: str) -> str:
    return cell.replace("\\", "/").rpartition("/")[2]


def _best(columns: Sequence[Sequence[str]], known: Collection[str]) -> Sequence[str] | None:
    """The column with the most cells in `known`, where these are more than half."""
    counts = [sum(cell in known for cell in column) for column in columns]
    if not counts or 2 * max(counts) <= len(columns[0]):
        return None
    return columns[counts.index(max(counts))]
