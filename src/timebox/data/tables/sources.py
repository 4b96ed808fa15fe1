"""Finds the tables of a folder that label its images."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timebox.data.folders.names import SPLITS, split_of
from timebox.data.folders.tree import ImageFolder
from timebox.data.reading.downloaded import check_downloaded
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, printable
from timebox.data.tables.columns import ColumnRoles, NoImagesError, find_columns
from timebox.data.tables.files.csv import read_csv
from timebox.data.tables.files.json_lines import read_json_lines
from timebox.data.tables.files.parquet import read_parquet
from timebox.data.tables.files.table import Table
from timebox.data.tables.image_paths import ImagePaths
from timebox.data.tables.label_column import UnlabelledError
from timebox.errors import DataError

READERS: Mapping[str, Callable[[Path, ReadOptions], Table]] = {
    ".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".pq": read_parquet, ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
}  # fmt: skip
_MAX_DEPTH = 2  # of folders that are looked through for tables


@dataclass(frozen=True, eq=False)
class LabelTable:
    """A table that names images and their labels.

    Attributes:
        files: its file, or several of the same columns that were joined.
        split: the split of its rows by its name or folder; None where nothing says so.
    """

    files: tuple[Path, ...]
    table: Table
    roles: ColumnRoles
    paths: ImagePaths
    split: str | None


@dataclass(frozen=True, eq=False)
class FoundTables:
    """The tables of a folder.

    Attributes:
        labelled: those that label images, at most one of each split.
        error: why a table that may label images cannot be read; None where there is no such table.
        names_images: whether that table was seen to name images, or is damaged.
        notes: on tables that are not used.
    """

    labelled: tuple[LabelTable, ...]
    error: DataError | None = None
    names_images: bool = False
    notes: tuple[str, ...] = ()


def is_table(path: Path) -> bool:
    """Whether a file has the suffix of a table."""
    return path.suffix.lower() in READERS


def read_label_table(files: Sequence[Path], paths: ImagePaths, split: str | None, options: ReadOptions) -> LabelTable:
    """Read tables of the same columns as one. Raises DataError where they hold no images or no labels."""
    tables: list[Table] = []
    for path in files:
        try:
            check_downloaded(path)
            tables.append(READERS[path.suffix.lower()](path, options))
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
    table = _concatenate(tables, files)
    source = files[0] if len(files) == 1 else files[0].parent
    return LabelTable(tuple(files), table, find_columns(table, paths.has_image, source, options.coarse), paths, split)


def find_tables(root: ImageFolder, options: ReadOptions) -> FoundTables:
    """The tables in a folder, or else in a folder without images below it, or else in the folders of its splits.

    Raises DataError where two tables label the same images.
    """
    at_root = ImagePaths.of(root.path, root, options)
    beside = [path for folder in root.walk() if folder is not root and not folder.num_images for path in folder.others]
    groups: list[list[tuple[Path, ImagePaths, str | None]]] = [
        [(path, at_root, _split_in_name(path)) for path in root.others],
        [(path, at_root, _split_in_name(path)) for path in beside if _depth(path, root) <= _MAX_DEPTH],
        [(path, ImagePaths.of(folder.path, folder, options), split) for folder, split, path in _in_splits(root)],
    ]
    errors: list[DataError] = []
    notes: list[str] = []
    labelled: list[LabelTable] = []
    for group in groups:
        tables = [entry for entry in group if is_table(entry[0]) and "submission" not in entry[0].name.lower()]
        labelled = _read_group(tables, options, notes, errors)
        if labelled:
            break
    serious = [error for error in errors if _is_of_images(error)]
    found = () if serious else _one_of_each_split(labelled, root, notes, options.class_names is not None)
    return FoundTables(found, next(iter([*serious, *errors]), None), bool(serious), tuple(notes))


def _read_group(
    tables: Sequence[tuple[Path, ImagePaths, str | None]],
    options: ReadOptions,
    notes: list[str],
    errors: list[DataError],
) -> list[LabelTable]:
    """The tables that label images. Adds notes on those that name images without labels, and errors of others."""
    labelled: list[LabelTable] = []
    for files, paths, split in _shards(tables):
        try:
            labelled.append(read_label_table(files, paths, split, options))
        except UnlabelledError as error:
            name = files[0].name
            notes.append(f"{name} has no labels: left out")
            errors += [error] if split in (None, "train") else []
        except DataError as error:
            errors.append(error)
    return labelled


def _is_of_images(error: DataError) -> bool:
    """Whether the table of an error names images, or is damaged, rather than one about other things."""
    return not isinstance(error, UnlabelledError | NoImagesError)


def _shards(
    tables: Sequence[tuple[Path, ImagePaths, str | None]],
) -> Iterator[tuple[list[Path], ImagePaths, str | None]]:
    """Tables of one split whose names differ in numbers only, as one: train-00000-of-00002.parquet."""
    groups: dict[tuple[Path, str, str | None], list[tuple[Path, ImagePaths, str | None]]] = {}
    for path, paths, split in tables:
        pattern = re.sub(r"\d+", "0", path.name) if path.suffix.lower() in (".parquet", ".pq") else path.name
        groups.setdefault((path.parent, pattern, split), []).append((path, paths, split))
    for (_, _, split), entries in groups.items():
        yield [path for path, _, _ in entries], entries[0][1], split


def _one_of_each_split(
    labelled: Sequence[LabelTable], root: ImageFolder, notes: list[str], is_scoring: bool
) -> tuple[LabelTable, ...]:
    """The tables to read. Raises DataError where two label the same split, and for data to train on without train."""
    if len(labelled) < 2:
        keeps_split = is_scoring or (labelled and labelled[0].split == "train")
        return tuple(labelled) if keeps_split else tuple(replace(table, split=None) for table in labelled)
    by_split: dict[str | None, list[LabelTable]] = {}
    for table in labelled:
        by_split.setdefault(table.split, []).append(table)
    has_splits = "train" in by_split or (is_scoring and None not in by_split)
    used = [split for split in SPLITS if split in by_split] if has_splits else [None]
    for split in used:
        if len(tables := by_split.get(split, [])) > 1:
            names = [printable(table.files[0].relative_to(root.path).as_posix()) for table in tables]
            raise DataError(f"{root.path} has several tables of labels, {abbreviate_list(names)}: give the one to read")
    if used == [None] and None not in by_split:
        names = [table.files[0].name for table in labelled]
        raise DataError(f"{root.path} has {' and '.join(names)} but no table of training images")
    left = [table.files[0].name for table in labelled if table.split not in used]
    if left:
        notes.append(f"{abbreviate_list(left)} not read: not of a split, beside tables that are")
    return tuple(by_split[split][0] for split in used)


def _in_splits(root: ImageFolder) -> Iterator[tuple[ImageFolder, str, Path]]:
    """(folder, split, table) of the tables that lie in folders of splits."""
    for folder in root.walk():
        split = split_of(folder.name)
        if folder is not root and split and len(folder.path.relative_to(root.path).parts) <= _MAX_DEPTH:
            for path in folder.others:
                yield folder, split, path


def _split_in_name(path: Path) -> str | None:
    """The split in the first two words of a table's name: "train-00000-of-00002", "trainLabels", "my_test"."""
    words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", path.stem).lower())
    in_first = next((split for word in words[:2] if (split := split_of(word))), None)
    return in_first or next((split for word in words if (split := split_of(word))), None)


def _depth(path: Path, root: ImageFolder) -> int:
    return len(path.relative_to(root.path).parts) - 1


def _concatenate(tables: Sequence[Table], paths: Sequence[Path]) -> Table:
    """The rows of several tables. Raises DataError where their columns differ."""
    first = tables[0]
    for table, path in zip(tables, paths, strict=True):
        if table.columns.keys() != first.columns.keys():
            listed = abbreviate_list(list(table.columns))
            raise DataError(f"{path}: its columns ({listed}) are not those of {paths[0].name}")
    if len(tables) == 1:
        return first
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in first.columns}
    return Table(columns, first.class_names)
