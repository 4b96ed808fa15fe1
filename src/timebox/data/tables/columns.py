"""Finds the image, label and split columns of a table, by their content first and by their names second."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from timebox.data.images.signatures import is_encoded_image
from timebox.data.reading.text import abbreviate_list
from timebox.data.tables.image_paths import is_image_path
from timebox.data.tables.labels import CleanLabels, clean_labels, is_missing
from timebox.data.tables.split_column import RowSplits, find_row_splits, unused_fold_note
from timebox.data.tables.table import Cell, Table
from timebox.errors import DataError

HasImage = Callable[[str], bool]  # whether a text refers to an image file

# Common column names in lower case, letters only, the most likely first.
_IMAGE_NAMES = (
    "image", "img", "imagepath", "imgpath", "path", "filepath", "filepaths", "file", "filename", "filenames",
    "imagename", "imagefile", "imageid", "idcode", "id", "name", "photo", "picture", "bytes",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "classname", "classes", "classid", "category", "categoryname", "categoryid", "target",
    "targets", "diagnosis", "dx", "species", "breed", "finelabel", "tag", "y", "coarselabel",
)  # fmt: skip
_LABEL_WORDS = frozenset({"label", "labels", "class", "classes", "category", "diagnosis", "species", "breed"})
_INDEX_NAMES = ("", "column", "index", "unnamed")
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_NUM_SAMPLED_CELLS = 50
_MIN_DISTINCT = 0.9  # of the cells of a column of names without suffix: labels and numbers repeat


class NoImagesError(DataError):
    """A table without a column of images."""


class UnlabelledError(DataError):
    """A table with images but without a label column."""


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
    label_column, labels = _labels(table, others, source, coarse)
    is_label_named = any(name in table.class_names or is_label_name(name) for name in others)
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
        preferred = [name for name in candidates if not is_label_name(name) and _letters(name) not in _INDEX_NAMES]
        if candidates:
            return _most_likely(preferred or candidates, _IMAGE_NAMES), "path" if kind == "name" else kind
    if len(table.columns) > 50 and sum(re.fullmatch(r"\D*\d+", name) is not None for name in table.columns) > 50:
        raise NoImagesError(
            f"{source}: {len(table.columns):,} columns of numbers hold the pixels themselves: save them as an .npz "
            "file of "
            "images, uint8 (N, H, W), and labels, (N,)"
        )
    raise NoImagesError(
        f"{source}: no column holds images or names image files that lie in {source.parent} or below. "
        f"Its first row: {table.describe_first_row()}"
    )


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


def _labels(table: Table, columns: Sequence[str], source: Path, coarse: bool) -> tuple[str, CleanLabels]:
    """(description of the label column, label of each row)."""
    texts = [name for name in columns if all(cell is None or isinstance(cell, str) for cell in table.columns[name])]
    declared = [name for name in texts if name in table.class_names]
    named = [name for name in texts if is_label_name(name)]
    one_hot = [name for name in texts if all(_flag(cell) is not None for cell in table.columns[name])]
    if len(one_hot) > 1 and not declared + named:
        labels = _labels_from_one_hot(table, one_hot, source)
        return f"columns {abbreviate_list(one_hot)} of 0 and 1", CleanLabels(tuple(labels), "no 1 in any column", ())
    exact = [name for name in named if _letters(name) in _LABEL_NAMES]
    candidates = declared or exact or (named if _say_the_same(table, named) else [])
    candidates = candidates or (texts if len(texts) == 1 else [])
    if not candidates:
        listed = ", ".join(map(repr, texts)) or "none"
        raise UnlabelledError(
            f"{source}: which column holds the labels? Besides the images there are {listed}; "
            f"name one of them 'label'. Its first row: {table.describe_first_row()}"
        )
    column = _most_likely(candidates, _LABEL_NAMES[::-1] if coarse else _LABEL_NAMES)
    cells, names = table.columns[column], table.class_names.get(column)
    texts_of_labels = [_declared_name(cell, names, source) for cell in cells]
    return f"column {column!r}", clean_labels(texts_of_labels, f"{source}: column {column!r}")


def _say_the_same(table: Table, names: Sequence[str]) -> bool:
    """Whether columns divide the rows in the same way, such as class numbers and class names."""
    rows = set(zip(*(table.columns[name] for name in names), strict=True))
    return all(len({row[position] for row in rows}) == len(rows) for position in range(len(names)))


def is_label_name(name: str) -> bool:
    """Whether a column has the name of a label: "label", "Class Id", "Finding Labels", "noisy_labels_0"."""
    words = re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if words == ["y"]:  # "y", but not the coordinate "y_1"
        return name.strip().lower() == "y"
    return "".join(words) in _LABEL_NAMES or bool(words and len(words[-1]) > 1 and words[-1] in _LABEL_WORDS)


def _declared_name(cell: Cell, names: Sequence[str] | None, source: Path) -> str | None:
    """The class name of a cell: that of its number where the table declares class names."""
    text = cell if isinstance(cell, str) else None
    if names is None or text is None or is_missing(text):
        return text
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        return text
    if number == -1:  # a test split without public labels
        return None
    if not 0 <= number < len(names):
        raise DataError(f"{source}: has the label {number}, but names {len(names)} classes (0..{len(names) - 1})")
    return names[number]


def _flag(cell: Cell) -> bool | None:
    """Whether a cell of a one-hot column is 1; None for any other cell."""
    return _FLAGS.get(cell.strip().lower()) if isinstance(cell, str) else None


def _labels_from_one_hot(table: Table, names: Sequence[str], source: Path) -> list[str | None]:
    """The name of the column that holds the 1, for each row; None for a row without.

    Raises DataError for a row with several.
    """
    labels: list[str | None] = []
    for row, cells in enumerate(zip(*(table.columns[name] for name in names), strict=True), 1):
        ones = [name for name, cell in zip(names, cells, strict=True) if _flag(cell)]
        if len(ones) > 1:
            raise DataError(
                f"{source}: row {row} has a 1 in {' and in '.join(map(repr, ones[:3]))}: timebox learns one label an "
                "image; "
                "which column holds the labels? Name one of them 'label', or keep the rows with one"
            )
        labels.append(ones[0] if ones else None)
    return labels


def _most_likely(names: Sequence[str], order: Sequence[str]) -> str:
    """The name that comes first in `order`; the first of the names where none is in it."""
    return min(names, key=lambda name: order.index(_letters(name)) if _letters(name) in order else len(order))


def _letters(name: str) -> str:
    """The letters of a name, in lower case."""
    return "".join(character for character in name.lower() if character.isalpha())
