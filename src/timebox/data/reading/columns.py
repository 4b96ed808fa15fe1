"""Which columns of a table hold the images, the labels and the splits: found by what is in them, then by name."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from timebox.data.reading.listing import is_image, split_of
from timebox.data.reading.wording import some
from timebox.errors import DataError

Cell = str | memoryview | None
Knows = Callable[[str], bool]

# Names that columns go by, the likeliest first, in lower case and without anything but letters.
_IMAGE_NAMES = (
    "image", "img", "imagepath", "imgpath", "path", "filepath", "filepaths", "file", "filename", "filenames",
    "imagename", "imagefile", "imageid", "idcode", "id", "name", "photo", "picture", "bytes",
)  # fmt: skip
_LABEL_NAMES = (
    "label", "labels", "class", "classname", "classes", "classid", "category", "categoryname", "categoryid", "target",
    "targets", "diagnosis", "dx", "species", "breed", "finelabel", "tag", "y", "coarselabel",
)  # fmt: skip
_SPLIT_NAMES = ("split", "splits", "set", "subset", "dataset", "partition", "usage", "fold")
_SAMPLE = 50
# How the formats that are read begin.
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P5", b"P6", b"\0\0\0\x0cjP")


class UnlabelledError(DataError):
    """A table of images in which nothing tells their labels."""


@dataclass(frozen=True)
class Table:
    """A table as its file holds it.

    Args:
        columns: name -> a cell for each row: text, an encoded image, or None where it is empty.
        class_names: of a column of class numbers, what it says they mean.
    """

    columns: Mapping[str, Sequence[Cell]]
    class_names: Mapping[str, tuple[str, ...]]

    @property
    def num_rows(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def first_row(self) -> str:
        """The first row, for people to read."""
        cells = [(name, next(iter(cells), None)) for name, cells in self.columns.items()]
        return ", ".join(f"{name}={_shown(cell)}" for name, cell in cells[:8]) + (", ..." if len(cells) > 8 else "")


@dataclass(frozen=True)
class Chosen:
    """What a table is taken for. A label or split is None where a row has none.

    Args:
        images: the column of the images.
        encoded: whether its text is an encoded image in base64, not a path.
        is_named: whether it is by its name, or by what the table says of it, that a column is taken for the labels.
        why: for people to read.
    """

    images: str
    encoded: bool
    is_named: bool
    labels: Sequence[str | None]
    splits: Sequence[str | None] | None
    why: str


def choose(table: Table, knows: Knows, source: Path, coarse: bool = False) -> Chosen:
    """Tell the columns apart.

    Args:
        knows: whether a text means an image file.
        source: named in errors.
        coarse: of several columns of classes, the coarser.
    Raises:
        DataError: where no column holds images or labels, saying what there is.
    """
    images, kind = _image_column(table, knows, source)
    splits = _split_column(table, images)
    others = [name for name in table.columns if name not in (images, splits)]
    label_names, labels = _labels(table, others, source, coarse)
    return Chosen(
        images,
        kind == "encoded text",
        any(name in table.class_names or _plain(name) in _LABEL_NAMES for name in others),
        labels,
        [_split_of(cell) for cell in table.columns[splits]] if splits else None,
        f"{kind}s in column {images!r}, labels in {label_names}" + (f", splits in column {splits!r}" if splits else ""),
    )


def decoded_text(text: str) -> bytes | None:
    """An image in base64, or None where the text is none."""
    try:
        blob = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return blob if blob.startswith(_MAGIC) else None


def _image_column(table: Table, knows: Knows, source: Path) -> tuple[str, str]:
    """The column of the images, and what it holds of them.

    A number may be the name of a file without its suffix, and so may an index or a label: such columns come last.
    """
    kinds = {name: _kind(cells, knows) for name, cells in table.columns.items()}
    for kind in ("encoded image", "path", "name", "encoded text"):
        fitting = [name for name, found in kinds.items() if found == kind]
        telling = [name for name in fitting if _plain(name) not in (*_LABEL_NAMES, "", "column", "index")]
        if fitting:
            return _likeliest(telling or fitting, _IMAGE_NAMES), "path" if kind == "name" else kind
    raise DataError(
        f"{source}: no column holds images or names image files that lie in {source.parent} or below. "
        f"Its first row: {table.first_row()}"
    )


def _kind(cells: Sequence[Cell], knows: Knows) -> str | None:
    """What a column holds of images, by its first few cells; None where it is nothing."""
    sample = list(islice((cell for cell in cells if cell), _SAMPLE))
    texts = [cell for cell in sample if isinstance(cell, str)]
    if len(texts) < len(sample):
        return "encoded image"
    if 2 * sum(map(knows, texts)) > len(texts):
        named = sum(is_image(text.strip().replace("\\", "/").rpartition("/")[2]) for text in texts)
        return "path" if 2 * named > len(texts) else "name"
    return "encoded text" if 2 * sum(decoded_text(text) is not None for text in texts) > len(texts) else None


def _split_column(table: Table, images: str) -> str | None:
    """A column that says train, val or test in every row, if there is one."""
    fitting = [
        name
        for name, cells in table.columns.items()
        if name != images and any(cells) and all(cell is None or _split_of(cell) is not None for cell in cells)
    ]
    return _likeliest(fitting, _SPLIT_NAMES) if fitting else None


def _split_of(cell: Cell) -> str | None:
    return split_of(cell) if isinstance(cell, str) else None


def _labels(table: Table, columns: Sequence[str], source: Path, coarse: bool) -> tuple[str, Sequence[str | None]]:
    """What the labels are called, and those of all rows."""
    texts = [name for name in columns if all(cell is None or isinstance(cell, str) for cell in table.columns[name])]
    declared = [name for name in texts if name in table.class_names]
    named = [name for name in texts if _plain(name) in _LABEL_NAMES]
    one_hot = [name for name in texts if _is_indicator(table.columns[name])]
    if len(one_hot) > 1 and not declared + named and (labels := _from_indicators(table, one_hot)) is not None:
        return f"columns {some(one_hot)} of 0 and 1", labels
    fitting = declared or named or (texts if len(texts) == 1 else [])
    if not fitting:
        listed = ", ".join(map(repr, texts)) or "none"
        raise UnlabelledError(
            f"{source}: which column holds the labels? Besides the images there are {listed}; "
            f"name one of them 'label'. Its first row: {table.first_row()}"
        )
    chosen = _likeliest(fitting, _LABEL_NAMES[::-1] if coarse else _LABEL_NAMES)
    cells, names = table.columns[chosen], table.class_names.get(chosen)
    return f"column {chosen!r}", [_class_name(cell, names, source) for cell in cells]


def _class_name(cell: Cell, names: Sequence[str] | None, source: Path) -> str | None:
    text = cell.strip() if isinstance(cell, str) else ""
    if names is None or not text:
        return text or None
    try:
        number = int(text)
    except ValueError:
        return text
    if number == -1:  # a test split whose labels are held back
        return None
    if not 0 <= number < len(names):
        raise DataError(f"{source}: has the label {number}, but names {len(names)} classes (0..{len(names) - 1})")
    return names[number]


def _is_indicator(cells: Sequence[Cell]) -> bool:
    return all(cell in ("0", "1", "0.0", "1.0") for cell in cells)


def _from_indicators(table: Table, names: Sequence[str]) -> list[str] | None:
    """The column that has the 1, row by row; None where a row has more or fewer."""
    labels = []
    for cells in zip(*(table.columns[name] for name in names), strict=True):
        marked = [name for name, cell in zip(names, cells, strict=True) if str(cell).startswith("1")]
        if len(marked) != 1:
            return None
        labels.append(marked[0])
    return labels


def _likeliest(names: Sequence[str], order: Sequence[str]) -> str:
    """The one whose name comes first in an order; of others, the first."""
    return min(names, key=lambda name: order.index(_plain(name)) if _plain(name) in order else len(order))


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalpha())


def _shown(cell: Cell) -> str:
    if isinstance(cell, memoryview):
        return f"({len(cell):,} bytes)"
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:36]}...'"
