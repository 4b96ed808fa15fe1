"""Tables of labelled images, CSV, TSV or Parquet: a row for each, with its path or its encoded bytes."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.formats.base import ReadOptions
from timebox.data.formats.csv import read_separated
from timebox.data.formats.parquet import read_parquet
from timebox.data.reading.columns import Cell, Chosen, Table, UnlabelledError, choose, decoded_text
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.listing import SPLITS, entries, holds_class_folders, split_of, subfolders
from timebox.data.reading.lookup import Lookup
from timebox.data.reading.wording import count, natural_order, some
from timebox.errors import DataError, UsageError

_READERS = {".csv": read_separated, ".tsv": read_separated, ".parquet": read_parquet, ".pq": read_parquet}


class Tables:
    name = (
        "a CSV, TSV or Parquet table with the path or the bytes of an image and its label in a row, or a folder of such"
    )

    def matches(self, path: Path) -> bool:
        if not path.is_dir():
            return path.suffix.lower() in _READERS
        by_split = _by_split(_tables_in(path))
        if len(by_split) == 1 and holds_class_folders(path):
            return _tells_more_than_folders(path, by_split["train"])
        return bool(by_split)

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        folder, by_split = (path, _by_split(_tables_in(path))) if path.is_dir() else (path.parent, {"train": [path]})
        lookup = Lookup(folder, confined=options.origin is not None)
        images: list[EncodedImage] = []
        notes: list[str] = []
        why = ""
        declared: list[str] = []
        for split, paths in by_split.items():
            table = _joined([_READERS[part.suffix.lower()](part, options) for part in paths], paths)
            source = paths[0] if len(paths) == 1 else path
            try:
                chosen = choose(table, lookup.knows, source, options.coarse)
            except UnlabelledError:
                if split == "train":
                    raise
                notes.append(f"{source.name} has no labels: left out")
                continue
            if options.coarse and "coarse" not in chosen.why.lower():
                raise UsageError(f"coarse asks for superclasses, but {source} has no column of them")
            why = why or chosen.why
            declared = declared or [name for names in table.class_names.values() for name in names]
            read = list(_images(table, chosen, split, lookup, folder))
            if unlabelled := table.num_rows - len(read):
                notes.append(f"{source.name}: {count(unlabelled, 'row')} without an image or a label left out")
            images += read
        if not any(image.split == "train" for image in images):
            raise DataError(f"{path}: no row holds an image to train on")
        loaded = load_encoded(path, _title(by_split), images, options, lambda names: _ordered(names, declared))
        return replace(loaded, notes=(*notes, *loaded.notes), why=why)


def _tells_more_than_folders(folder: Path, tables: Sequence[Path]) -> bool:
    """Whether a table beside folders of images names these and their labels; then the folders are not the classes."""
    try:
        table = _READERS[tables[0].suffix.lower()](tables[0], ReadOptions())
        chosen = choose(table, Lookup(folder).knows, tables[0])
    except DataError:
        return False
    return chosen.is_named


def _tables_in(folder: Path) -> list[Path]:
    """The tables in a folder, or in its folder "data", as Hugging Face's repositories have them."""
    here = [entry for entry in entries(folder) if entry.is_file() and entry.suffix.lower() in _READERS]
    data = folder / "data"
    return here or (_tables_in(data) if data in subfolders(folder) else [])


def _by_split(tables: Sequence[Path]) -> dict[str, list[Path]]:
    """Tables by the split that their names begin with, one of which must be train; or the only one there is."""
    found: dict[str, list[Path]] = {}
    for table in tables:
        words = re.findall("[a-z]+", table.stem.lower())
        split = next((split for word in words[:2] if (split := split_of(word))), None)
        if split:
            found.setdefault(split, []).append(table)
    if "train" not in found:
        return {"train": list(tables)} if len(tables) == 1 else {}
    return {split: found[split] for split in SPLITS if split in found}


def _joined(tables: Sequence[Table], paths: Sequence[Path]) -> Table:
    """The rows of several tables with the same columns."""
    first = tables[0]
    for table, path in zip(tables, paths, strict=True):
        if table.columns.keys() != first.columns.keys():
            raise DataError(f"{path}: its columns ({some(list(table.columns))}) are not those of {paths[0].name}")
    if len(tables) == 1:
        return first
    columns: Mapping[str, Sequence[Cell]] = {
        name: [cell for table in tables for cell in table.columns[name]] for name in first.columns
    }
    return Table(columns, first.class_names)


def _images(table: Table, chosen: Chosen, split: str, lookup: Lookup, folder: Path) -> Iterator[EncodedImage]:
    """The rows that have an image and a label."""
    for row, (cell, label) in enumerate(zip(table.columns[chosen.images], chosen.labels, strict=True)):
        if cell is None or label is None:
            continue
        belongs = (chosen.splits[row] if chosen.splits else None) or split
        if isinstance(cell, memoryview):
            yield EncodedImage(str(row), cell, belongs, label)
        elif chosen.encoded:
            yield EncodedImage(str(row), memoryview(decoded_text(cell) or b""), belongs, label)
        else:
            yield EncodedImage(cell, lookup.find(cell, belongs) or _place(folder, cell), belongs, label)


def _place(folder: Path, cell: str) -> Path:
    """Where a file that is nowhere should lie, for its error; never outside of the folder."""
    return folder / cell.strip().replace("\0", "").lstrip("/").replace("..", "")


def _ordered(names: Sequence[str], declared: Sequence[str]) -> list[str]:
    """Classes in the order in which a table declares them, where it does."""
    if set(names) <= set(declared):
        return sorted(names, key=declared.index)
    return natural_order(names)


def _title(by_split: Mapping[str, Sequence[Path]]) -> str:
    kind = {"csv": "CSV", "tsv": "TSV"}.get(by_split["train"][0].suffix.lower().lstrip("."), "Parquet")
    return f"{kind} table{'s' if sum(map(len, by_split.values())) > 1 else ''}"
