"""CSV, TSV and Parquet tables with one labelled image per row, as a path or as encoded bytes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.formats.csv import read_csv
from timebox.data.formats.parquet import read_parquet
from timebox.data.reading.columns import ColumnRoles, Table, UnlabelledError, decode_base64_image, find_columns
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.image_finder import ImageFinder
from timebox.data.reading.listing import SPLITS, entries, holds_class_folders, split_of, subfolders
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, pluralize, sort_naturally
from timebox.errors import DataError, UsageError

_READERS = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".pq": read_parquet}


class Tables:
    name = (
        "a CSV, TSV or Parquet table with the path or the bytes of an image and its label in a row, or a folder of such"
    )

    def matches(self, path: Path) -> bool:
        if not path.is_dir():
            return path.suffix.lower() in _READERS
        by_split = _by_split(_tables_in(path))
        if len(by_split) == 1 and holds_class_folders(path):
            return _has_named_labels(path, by_split["train"][0])
        return bool(by_split)

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        folder, by_split = (path, _by_split(_tables_in(path))) if path.is_dir() else (path.parent, {"train": [path]})
        finder = ImageFinder(folder, is_confined=options.archive is not None)
        images: list[EncodedImage] = []
        notes: list[str] = []
        why = ""
        declared: list[str] = []
        for split, paths in by_split.items():
            table = _concatenate([_READERS[part.suffix.lower()](part, options) for part in paths], paths)
            source = paths[0] if len(paths) == 1 else path
            try:
                roles = find_columns(table, finder.has_image, source, options.coarse)
            except UnlabelledError:
                if split == "train":
                    raise
                notes.append(f"{source.name} has no labels: left out")
                continue
            if options.coarse and "coarse" not in roles.why.lower():
                raise UsageError(f"coarse asks for superclasses, but {source} has no column of them")
            why = why or roles.why
            declared = declared or [name for names in table.class_names.values() for name in names]
            labelled = list(_images(table, roles, split, finder, folder))
            if num_skipped := table.num_rows - len(labelled):
                notes.append(f"{source.name}: {pluralize(num_skipped, 'row')} without an image or a label left out")
            images += labelled
        if not any(image.split == "train" for image in images):
            raise DataError(f"{path}: no row holds an image to train on")
        loaded = load_encoded(path, _format_name(by_split), images, options, lambda names: _sort(names, declared))
        return replace(loaded, notes=(*notes, *loaded.notes), why=why)


def _has_named_labels(folder: Path, path: Path) -> bool:
    """Whether a table beside class folders names images and has a named label column: then the table is the source."""
    try:
        table = _READERS[path.suffix.lower()](path, ReadOptions())
        return find_columns(table, ImageFinder(folder).has_image, path).is_label_named
    except DataError:
        return False


def _tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, or else in its subfolder "data", as in the repositories of Hugging Face."""
    tables = [entry for entry in entries(folder) if entry.is_file() and entry.suffix.lower() in _READERS]
    data = folder / "data"
    return tables or (_tables_in(data) if data in subfolders(folder) else [])


def _by_split(tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Tables by the split in the first two words of their names. A single table is train; none without train."""
    by_split: dict[str, list[Path]] = {}
    for table in tables:
        words = re.findall("[a-z]+", table.stem.lower())
        split = next((split for word in words[:2] if (split := split_of(word))), None)
        if split:
            by_split.setdefault(split, []).append(table)
    if "train" not in by_split:
        return {"train": list(tables)} if len(tables) == 1 else {}
    return {split: by_split[split] for split in SPLITS if split in by_split}


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


def _images(table: Table, roles: ColumnRoles, split: str, finder: ImageFinder, folder: Path) -> Iterator[EncodedImage]:
    """The images of all rows that have an image and a label."""
    for row, (cell, label) in enumerate(zip(table.columns[roles.images], roles.labels, strict=True)):
        if cell is None or label is None:
            continue
        row_split = (roles.splits[row] if roles.splits else None) or split
        if isinstance(cell, memoryview):
            yield EncodedImage(str(row), cell, row_split, label)
        elif roles.is_base64:
            yield EncodedImage(str(row), memoryview(decode_base64_image(cell) or b""), row_split, label)
        else:
            yield EncodedImage(cell, finder.find(cell, row_split) or _missing_path(folder, cell), row_split, label)


def _missing_path(folder: Path, cell: str) -> Path:
    """The expected path of a file that does not exist, so that reading it fails; always inside the folder."""
    return folder / cell.strip().replace("\0", "").lstrip("/").replace("..", "")


def _sort(names: Sequence[str], declared: Sequence[str]) -> list[str]:
    """Class names in the order that the table declares, else in natural order."""
    if set(names) <= set(declared):
        return sorted(names, key=declared.index)
    return sort_naturally(names)


def _format_name(by_split: Mapping[str, Sequence[Path]]) -> str:
    kind = {"csv": "CSV", "tsv": "TSV"}.get(by_split["train"][0].suffix.lower().lstrip("."), "Parquet")
    return f"{kind} table{'s' if sum(map(len, by_split.values())) > 1 else ''}"
