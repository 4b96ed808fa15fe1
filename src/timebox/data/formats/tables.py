"""One table, given as a path: CSV, TSV, JSON Lines or Parquet, with an image and its label in each row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.reading.encoded_images import load_encoded
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import sort_naturally
from timebox.data.tables.image_paths import ImagePaths
from timebox.data.tables.labelled_images import LabelledImages, labelled_images
from timebox.data.tables.sources import LabelTable, is_table, read_label_table
from timebox.errors import DataError, UsageError


class Tables:
    name = "a CSV, TSV, JSON Lines or Parquet table with the path or the bytes of an image and its label in a row"

    def matches(self, path: Path) -> bool:
        return is_table(path) and not path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        paths = ImagePaths(path.parent, is_confined=options.archive is not None)
        table = read_label_table([path], paths, None, options)
        return load_tables(path, [(table, images_of(table))], options)


def images_of(table: LabelTable) -> LabelledImages:
    """The images that a table labels."""
    source = table.files[0] if len(table.files) == 1 else table.files[0].parent
    return labelled_images(table.table, table.roles, table.paths, source, table.split)


def load_tables(path: Path, tables: Sequence[tuple[LabelTable, LabelledImages]], options: ReadOptions) -> LoadedData:
    """Decode the images of tables, one of each split. Raises DataError where none is to be trained on."""
    for table, _ in tables:
        if options.coarse and "coarse" not in table.roles.why.lower():
            raise UsageError(f"coarse asks for superclasses, but {table.files[0]} has no column of them")
    images = [image for _, labelled in tables for image in labelled.images]
    images = [image for image in images if image.split == "train" or image.split in options.wanted_splits]
    if not any(image.split == "train" for image in images):
        raise DataError(f"{path}: no row holds an image to train on")
    declared = [name for table, _ in tables for names in table.table.class_names.values() for name in names]
    loaded = load_encoded(path, _format_name(tables), images, options, lambda names: _sort(names, declared))
    left_out = tuple(each for _, labelled in tables for each in labelled.left_out)
    notes = (*(note for _, labelled in tables for note in labelled.notes), *(each.sentence for each in left_out))
    return replace(loaded, notes=(*notes, *loaded.notes), why=tables[0][0].roles.why, left_out=left_out)


def _sort(names: Sequence[str], declared: Sequence[str]) -> list[str]:
    """Class names in the order that the table declares, else in natural order."""
    if set(names) <= set(declared):
        return sorted(names, key=declared.index)
    return sort_naturally(names)


def _format_name(tables: Sequence[tuple[LabelTable, LabelledImages]]) -> str:
    files = [file for table, _ in tables for file in table.files]
    kinds = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines"}
    return f"{kinds.get(files[0].suffix.lower(), 'Parquet')} table{'s' if len(files) > 1 else ''}"
