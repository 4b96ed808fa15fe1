"""One table, given as a path: CSV, TSV, JSON Lines or Parquet, with an image and its label in each row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from timebox.data.dataset import LoadedData
from timebox.data.left_out import LeftOut
from timebox.data.reading.encoded_images import EncodedImage, load_encoded
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import sort_naturally
from timebox.data.tables.image_paths import ImagePaths
from timebox.data.tables.labelled_images import LabelledImages, labelled_images
from timebox.data.tables.sources import LabelTable, is_table, read_label_table
from timebox.errors import DataError, UsageError
from timebox.formatting import plural


class Tables:
    name = "a CSV, TSV, JSON Lines or Parquet table of images and labels"

    def matches(self, path: Path) -> bool:
        return is_table(path) and not path.is_dir()

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        table = read_label_table([path], ImagePaths.of(path.parent, None, options), None, options)
        return load_tables(path, [(table, images_of(table))], options)


def images_of(table: LabelTable) -> LabelledImages:
    """The images that a table labels."""
    source = table.files[0] if len(table.files) == 1 else table.files[0].parent
    return labelled_images(table.table, table.roles, table.paths, source, table.split)


def load_tables(path: Path, tables: Sequence[tuple[LabelTable, LabelledImages]], options: ReadOptions) -> LoadedData:
    """Decode the images of tables, one of each split. Raises DataError where none is to be trained on."""
    for table, labelled in tables:
        if labelled.refusal:
            raise DataError(labelled.refusal)
        if options.coarse and "coarse" not in table.roles.why.lower():
            raise UsageError(f"coarse asks for superclasses, but {table.files[0]} has no column of them")
    images = [image for _, labelled in tables for image in labelled.images]
    images = [image for image in images if image.split == "train" or image.split in options.wanted_splits]
    images, unlabelled = _without_unknown_label(images)
    if not images or (options.class_names is None and not any(image.split == "train" for image in images)):
        counts = ", ".join(f"{table.files[0].name} has {table.table.num_rows:,} rows" for table, _ in tables)
        raise DataError(f"{path}: no row holds an image to train on: {counts}, none with an image and a label")
    declared = [name for table, _ in tables for names in table.table.class_names.values() for name in names]
    loaded = load_encoded(path, _format_name(tables), images, options, lambda names: _sort(names, declared))
    left_out = (*(each for _, labelled in tables for each in labelled.left_out), *unlabelled)
    notes = (
        *(note for _, labelled in tables for note in labelled.notes),
        *overlap_notes(images),
        *(each.sentence for each in left_out),
    )
    return replace(loaded, notes=(*notes, *loaded.notes), why=tables[0][0].roles.why, left_out=left_out)


def _without_unknown_label(images: Sequence[EncodedImage]) -> tuple[list[EncodedImage], list[LeftOut]]:
    """(the images, without those of a val or test split in which all have the label -1, which train does not have)."""
    labels: dict[str, set[str]] = {}
    for image in images:
        labels.setdefault(image.split, set()).add(image.class_name)
    hidden = {split for split, names in labels.items() if split != "train" and names == {"-1"}}
    hidden -= set(labels) if "-1" in labels.get("train", set()) else set()
    record = LeftOut.of("image", "with the label -1 of hidden labels", [i.name for i in images if i.split in hidden])
    return [image for image in images if image.split not in hidden], [record] if record else []


def overlap_notes(images: Sequence[EncodedImage]) -> list[str]:
    """A note on files that are in two splits."""
    splits: dict[str, set[str]] = {}
    for image in images:
        if isinstance(image.content, Path):
            splits.setdefault(str(image.content), set()).add(image.split)
    both = [image for image in images if len(splits.get(str(image.content), ())) > 1]
    if not both:
        return []
    number = len({str(image.content) for image in both})
    return [f"{plural(number, 'image')} are in more than one split, such as {both[0].name}: scores will be too good"]


def _sort(names: Sequence[str], declared: Sequence[str]) -> list[str]:
    """Class names in the order that the table declares, else in natural order."""
    if set(names) <= set(declared):
        return sorted(names, key=declared.index)
    return sort_naturally(names)


def _format_name(tables: Sequence[tuple[LabelTable, LabelledImages]]) -> str:
    files = [file for table, _ in tables for file in table.files]
    kinds = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines"}
    return f"{kinds.get(files[0].suffix.lower(), 'Parquet')} table{'s' if len(files) > 1 else ''}"
