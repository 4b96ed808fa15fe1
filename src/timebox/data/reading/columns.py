"""Finds the image, label and split columns of a table, by their content first and by their names second."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from timebox.data.reading.listing import is_image_path, split_of
from timebox.data.reading.text import abbreviate_list
from timebox.errors import DataError

Cell = str | memoryview | None  # text, an encoded image, or an empty cell
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
_SPLIT_NAMES = ("split", "splits", "set", "subset", "dataset", "partition", "usage", "fold")
_NUM_SAMPLED_CELLS = 50
_IMAGE_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P5", b"P6", b"\0\0\0\x0cjP")


class UnlabelledError(DataError):
    """A table with images but without a label column."""


@dataclass(frozen=True)
class Table:
    """The content of a table file: cells by column, and class names by column of class numbers, if the file has any."""

    columns: Mapping[str, Sequence[Cell]]
    class_names: Mapping[str, tuple[str, ...]]

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def describe_first_row(self) -> str:
        """The first eight cells of the first row, for error messages."""
        cells = [(name, next(iter(cells), None)) for name, cells in self.columns.items()]
        return ", ".join(f"{name}={_preview(cell)}" for name, cell in cells[:8]) + (", ..." if len(cells) > 8 else "")


@dataclass(frozen=True)
class ColumnRoles:
    """The columns of a table that hold images, labels and splits."""

    images: str  # name of the column
    is_base64: bool  # images in base64 rather than paths
    is_label_named: bool  # a column has a label's name, or declares class names
    labels: Sequence[str | None]  # one per row
    splits: Sequence[str | None] | None  # "train", "val", "test" or None for each row; None without a split column
    why: str  # the evidence, for the user


def find_columns(table: Table, has_image: HasImage, source: Path, coarse: bool = False) -> ColumnRoles:
    """Find the columns of images, labels (the coarser of several, if `coarse`) and splits.

    Raises, naming `source`, DataError where no column holds images, and UnlabelledError where none holds labels.
    """
    images, kind = _image_column(table, has_image, source)
    splits = _split_column(table, images)
    others = [name for name in table.columns if name not in (images, splits)]
    label_column, labels = _labels(table, others, source, coarse)
    is_label_named = any(name in table.class_names or _letters(name) in _LABEL_NAMES for name in others)
    row_splits = [_split_of(cell) for cell in table.columns[splits]] if splits else None
    why = f"{kind}s in column {images!r}, labels in {label_column}"
    why += f", splits in column {splits!r}" if splits else ""
    return ColumnRoles(images, kind == "encoded text", is_label_named, labels, row_splits, why)


def decode_base64_image(text: str) -> bytes | None:
    """The bytes of an image in base64, or None where the text is not one."""
    try:
        blob = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if blob.startswith(_IMAGE_MAGIC) else None


def _image_column(table: Table, has_image: HasImage, source: Path) -> tuple[str, str]:
    """The name of the image column, and the kind of its cells."""
    kinds = {name: _image_kind(cells, has_image) for name, cells in table.columns.items()}
    for kind in ("encoded image", "path", "name", "encoded text"):
        candidates = [name for name, its_kind in kinds.items() if its_kind == kind]
        # A number may be a file name without its suffix, but also a row index or a label.
        preferred = [name for name in candidates if _letters(name) not in (*_LABEL_NAMES, "", "column", "index")]
        if candidates:
            return _most_likely(preferred or candidates, _IMAGE_NAMES), "path" if kind == "name" else kind
    raise DataError(
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
        return "path" if 2 * sum(map(is_image_path, texts)) > len(texts) else "name"
    return "encoded text" if 2 * sum(decode_base64_image(text) is not None for text in texts) > len(texts) else None


def _split_column(table: Table, images: str) -> str | None:
    """The name of a column in which every cell names a split or is empty; None where there is none."""
    candidates = [
        name
        for name, cells in table.columns.items()
        if name != images and any(cells) and all(cell is None or _split_of(cell) is not None for cell in cells)
    ]
    return _most_likely(candidates, _SPLIT_NAMES) if candidates else None


def _split_of(cell: Cell) -> str | None:
    return split_of(cell) if isinstance(cell, str) else None


def _labels(table: Table, columns: Sequence[str], source: Path, coarse: bool) -> tuple[str, Sequence[str | None]]:
    """(description of the label column, label of each row)."""
    texts = [name for name in columns if all(cell is None or isinstance(cell, str) for cell in table.columns[name])]
    declared = [name for name in texts if name in table.class_names]
    named = [name for name in texts if _letters(name) in _LABEL_NAMES]
    one_hot = [name for name in texts if all(cell in ("0", "1", "0.0", "1.0") for cell in table.columns[name])]
    if len(one_hot) > 1 and not declared + named and (labels := _labels_from_one_hot(table, one_hot)) is not None:
        return f"columns {abbreviate_list(one_hot)} of 0 and 1", labels
    candidates = declared or named or (texts if len(texts) == 1 else [])
    if not candidates:
        listed = ", ".join(map(repr, texts)) or "none"
        raise UnlabelledError(
            f"{source}: which column holds the labels? Besides the images there are {listed}; "
            f"name one of them 'label'. Its first row: {table.describe_first_row()}"
        )
    column = _most_likely(candidates, _LABEL_NAMES[::-1] if coarse else _LABEL_NAMES)
    cells, names = table.columns[column], table.class_names.get(column)
    return f"column {column!r}", [_class_name(cell, names, source) for cell in cells]


def _class_name(cell: Cell, names: Sequence[str] | None, source: Path) -> str | None:
    text = cell.strip() if isinstance(cell, str) else ""
    if names is None or not text:
        return text or None
    try:
        number = int(text)
    except ValueError:
        return text
    if number == -1:  # a test split without public labels
        return None
    if not 0 <= number < len(names):
        raise DataError(f"{source}: has the label {number}, but names {len(names)} classes (0..{len(names) - 1})")
    return names[number]


def _labels_from_one_hot(table: Table, names: Sequence[str]) -> list[str] | None:
    """The name of the column that holds the 1, for each row; None where a row has no 1 or several."""
    labels = []
    for cells in zip(*(table.columns[name] for name in names), strict=True):
        ones = [name for name, cell in zip(names, cells, strict=True) if str(cell).startswith("1")]
        if len(ones) != 1:
            return None
        labels.append(ones[0])
    return labels


def _most_likely(names: Sequence[str], order: Sequence[str]) -> str:
    """The name that comes first in `order`; the first of the names where none is in it."""
    return min(names, key=lambda name: order.index(_letters(name)) if _letters(name) in order else len(order))


def _letters(name: str) -> str:
    """The letters of a name, in lower case."""
    return "".join(character for character in name.lower() if character.isalpha())


def _preview(cell: Cell) -> str:
    if isinstance(cell, memoryview):
        return f"({len(cell):,} bytes)"
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:36]}...'"
