"""Finds the image column of a table, by its content first and by its name second, and the roles of all columns."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from timebox.data.folders.masks import is_mask_name
from timebox.data.images.signatures import is_encoded_image
from timebox.data.tables.files.table import Cell, Table
from timebox.data.tables.image_paths import is_image_path
from timebox.data.tables.label_column import find_labels, is_label_name, letters, most_likely
from timebox.data.tables.labels import CleanLabels
from timebox.data.tables.split_column import RowSplits, find_row_splits, unused_fold_note
from timebox.errors import DataError

HasImage = Callable[[str], bool]  # whether a text refers to an image file

# Common column names in lower case, letters only, the most likely first.
_IMAGE_NAMES = (
    "image", "img", "imagepath", "imgpath", "path", "filepath", "filepaths", "file", "filename", "filenames",
    "imagename", "imagefile", "imageid", "idcode", "id", "name", "photo", "picture", "bytes",
)  # fmt: skip
_INDEX_NAMES = ("", "column", "index", "unnamed")
_NUM_SAMPLED_CELLS = 50
_MIN_DISTINCT = 0.9  # of the cells of a column of names without suffix: labels and numbers repeat


class NoImagesError(DataError):
    """A table without a column of images."""


@dataclass(frozen=True)
class ColumnRoles:
    """The columns of a table that hold images, labels and splits.

    Attributes:
        images: name of the column of images.
        is_base64: whether images are in base64 rather than paths.
        is_label_named: whether a column has a label's name, or declares class names.
        labels: the label of each row.
        splits: the split of each row; None without a column that says so.
        why: the evidence, for the user.
        notes: for the user.
    """

    images: str
    is_base64: bool
    is_label_named: bool
    labels: CleanLabels
    splits: RowSplits | None
    why: str
    notes: tuple[str, ...] = ()


def find_columns(table: Table, has_image: HasImage, source: Path, coarse: bool = False) -> ColumnRoles:
    """Find the columns of images, labels (the coarser of several, if `coarse`) and splits.

    Raises, naming `source`, DataError where no column holds images or a column holds no splits or labels as it should,
    and UnlabelledError where none holds labels.
    """
    images, kind = find_image_column(table, has_image, source)
    splits = find_row_splits(table, images, source)
    split_columns = splits.columns if splits else ()
    others = [name for name in table.columns if name not in (images, *split_columns)]
    label_column, labels, is_label_named = find_labels(table, others, source, coarse)
    why = f"{kind}s in column {images!r}, labels in {label_column}"
    if splits:
        why += f", splits in column{'s' if len(split_columns) > 1 else ''} {', '.join(map(repr, split_columns))}"
    fold = None if splits else unused_fold_note(table)
    notes = (*labels.notes, *(splits.notes if splits else ()), *((fold,) if fold else ()))
    return ColumnRoles(images, kind == "encoded text", is_label_named, labels, splits, why, notes)


def decode_base64_image(text: str) -> bytes | None:
    """The bytes of an image in base64, or None where the text is not one."""
    try:
        blob = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if is_encoded_image(blob[:64]) else None


def find_image_column(table: Table, has_image: HasImage, source: Path) -> tuple[str, str]:
    """The name of the image column, and the kind of its cells: "encoded image", "path" or "encoded text".

    Raises DataError, naming `source`, where there is none.
    """
    kinds = {name: _image_kind(cells, has_image) for name, cells in table.columns.items()}
    for kind in ("encoded image", "path", "name", "encoded text"):
        candidates = [name for name, its_kind in kinds.items() if its_kind == kind]
        # A number may be a file name without its suffix, but also a row index or a label.
        preferred = [name for name in candidates if not is_label_name(name) and letters(name) not in _INDEX_NAMES]
        if candidates:
            return _choose(preferred or candidates, source), "path" if kind == "name" else kind
    if len(table.columns) > 50 and sum(re.fullmatch(r"(\D*\d+){1,2}", name) is not None for name in table.columns) > 50:
        raise NoImagesError(
            f"{source}: {len(table.columns):,} columns of numbers hold the pixels themselves: save them as an .npz "
            "file of images, uint8 (N, H, W), and labels, (N,)"
        )
    raise NoImagesError(
        f"{source}: no column holds images or names image files that lie in {source.parent} or below. "
        f"Its first row: {table.describe_first_row()}"
    )


def _choose(names: Sequence[str], source: Path) -> str:
    """The most likely of several columns of images: one of a known name, or the only one that is not of masks."""
    known = [name for name in names if letters(name) in _IMAGE_NAMES]
    if known:
        return most_likely(known, _IMAGE_NAMES)
    rest = [name for name in names if not is_mask_name(name)] or list(names)
    if len(rest) > 1:
        listed = " and ".join(map(repr, rest[:3]))
        raise DataError(
            f"{source}: the columns {listed} all name images: keep the one to learn from, or name it 'image'"
        )
    return rest[0]


def _image_kind(cells: Sequence[Cell], has_image: HasImage) -> str | None:
    """The kind of images that most of a column's first cells hold; None for a column without images."""
    sample = list(islice((cell for cell in cells if cell), _NUM_SAMPLED_CELLS))
    texts = [cell for cell in sample if isinstance(cell, str)]
    if len(texts) < len(sample):
        return "encoded image"
    if 2 * sum(map(has_image, texts)) > len(texts):
        if 2 * sum(map(is_image_path, texts)) > len(texts):
            return "path"
        return "name" if len(set(texts)) >= _MIN_DISTINCT * len(texts) else None
    return "encoded text" if 2 * sum(decode_base64_image(text) is not None for text in texts) > len(texts) else None
