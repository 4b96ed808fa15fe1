"""Finds the labels of a table: in a column, or in one-hot columns."""

import re
from collections.abc import Sequence
from pathlib import Path

from timebox.data.reading.text import abbreviate_list
from timebox.data.tables.files.table import Cell, Table
from timebox.data.tables.labels import CleanLabels, clean_labels, is_missing
from timebox.errors import DataError

# Common names of label columns in lower case, letters only, the most likely first.
_LABEL_NAMES = (
    "label", "labels", "class", "classname", "classes", "classid", "category", "categoryname", "categoryid", "target",
    "targets", "diagnosis", "dx", "species", "breed", "finelabel", "tag", "y", "coarselabel",
)  # fmt: skip
_LABEL_WORDS = frozenset({"label", "labels", "class", "classes", "category", "diagnosis", "species", "breed"})
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_PLAIN_NAMES = ("label", "labels")
_MIN_ROWS = 10  # of a column whose cells all differ, which then holds no classes


class UnlabelledError(DataError):
    """A table with images but without a label column."""


def find_labels(table: Table, columns: Sequence[str], source: Path, coarse: bool) -> tuple[str, CleanLabels, bool]:
    """(description of the label column, label of each row, whether names or 0 and 1 say that these are labels).

    `columns` are those that hold neither images nor splits; `coarse` takes the coarser of two label columns.
    Raises UnlabelledError, naming `source`, where none holds labels or two could.
    """
    texts = [name for name in columns if all(cell is None or isinstance(cell, str) for cell in table.columns[name])]
    declared = [name for name in texts if name in table.class_names]
    named = [name for name in texts if is_label_name(name) and not (name.lower() == "y" and "x" in table.columns)]
    one_hot = [name for name in texts if all(_flag(cell) is not None for cell in table.columns[name])]
    if len(named) > 1 and set(named) <= set(one_hot) and _is_one_hot(table, named):
        one_hot, named = named, []
    if len(one_hot) > 1 and not declared + named:
        labels = _labels_from_one_hot(table, one_hot, source)
        described = f"columns {abbreviate_list(one_hot)} of 0 and 1"
        return described, CleanLabels(tuple(labels), "no 1 in any column", ()), True
    column = _label_column(table, texts, declared, named, source, coarse)
    cells, names = table.columns[column], table.class_names.get(column)
    texts_of_labels = [_declared_name(cell, names, source) for cell in cells]
    labels_of_rows = clean_labels(texts_of_labels, f"{source}: column {column!r}", column)
    return f"column {column!r}", labels_of_rows, bool(declared or named)


def _label_column(
    table: Table, texts: Sequence[str], declared: Sequence[str], named: Sequence[str], source: Path, coarse: bool
) -> str:
    exact = [name for name in named if letters(name) in _LABEL_NAMES]
    candidates = [*declared] or exact or [*named]
    if plain := [name for name in candidates if letters(name) in _PLAIN_NAMES]:
        return plain[0]
    levels = [name for name in candidates if letters(name).startswith(("fine", "coarse"))]
    if levels:
        return most_likely(candidates, _LABEL_NAMES[::-1] if coarse else _LABEL_NAMES)
    if candidates and _say_the_same(table, candidates):
        return most_likely(candidates, _LABEL_NAMES)
    if candidates:
        listed = " and ".join(map(repr, candidates[:3]))
        raise UnlabelledError(f"{source}: the columns {listed} could both be the labels: keep one, or name it 'label'")
    if len(texts) != 1:
        listed = ", ".join(map(repr, texts)) or "none"
        raise UnlabelledError(
            f"{source}: which column holds the labels? Besides the images there are {listed}; "
            f"name one of them 'label'. Its first row: {table.describe_first_row()}"
        )
    cells = [cell for cell in table.columns[texts[0]] if cell]
    if len(cells) >= _MIN_ROWS and len(set(cells)) == len(cells):
        raise UnlabelledError(
            f"{source}: which column holds the labels? {texts[0]!r} has another text in every row, which makes no "
            "classes"
        )
    return texts[0]


def _is_one_hot(table: Table, names: Sequence[str]) -> bool:
    """Whether every row has exactly one 1 in these columns."""
    return all(
        sum(bool(_flag(cell)) for cell in row) == 1
        for row in zip(*(table.columns[name] for name in names), strict=True)
    )


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
                "image; which column holds the labels? Name one of them 'label', or keep the rows with one"
            )
        labels.append(ones[0] if ones else None)
    return labels


def most_likely(names: Sequence[str], order: Sequence[str]) -> str:
    """The name that comes first in `order`; the first of the names where none is in it."""
    return min(names, key=lambda name: order.index(letters(name)) if letters(name) in order else len(order))


def letters(name: str) -> str:
    """The letters of a name, in lower case."""
    return "".join(character for character in name.lower() if character.isalpha())
