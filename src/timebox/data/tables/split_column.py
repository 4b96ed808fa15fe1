"""Finds the columns of a table that say which split a row belongs to, and reads them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timebox.data.folders.names import split_of
from timebox.data.tables.files.table import Table
from timebox.errors import DataError

# Columns of these names hold splits, whatever words are in them.
_NAMES = frozenset({"split", "splits", "datasplit", "traintest", "traintestsplit", "trainvaltest"})
# Columns of these names hold splits where a word in them is one: "dataset" may name the source of an image too.
_POSSIBLE_NAMES = frozenset({
    "set", "sets", "subset", "dataset", "partition", "usage", "fold", "phase", "mode", "type", "part", "purpose",
    "role", "stage",
})  # fmt: skip
# Columns of yes and no -> (split for yes, split for no).
_FLAGS = {
    "isvalid": ("val", "train"), "isval": ("val", "train"), "isvalidation": ("val", "train"),
    "validset": ("val", "train"), "isdev": ("val", "train"),
    "istest": ("test", "train"), "istesting": ("test", "train"), "testset": ("test", "train"),
    "istrain": ("train", "test"), "istraining": ("train", "test"), "istrainingimage": ("train", "test"),
    "isholdout": ("test", "train"), "holdout": ("test", "train"),
}  # fmt: skip
# Names that count as such columns only where they are not classes of one-hot columns: bus, car, train.
_PLAIN_FLAGS = {
    "valid": ("val", "train"), "val": ("val", "train"), "validation": ("val", "train"), "dev": ("val", "train"),
    "test": ("test", "train"), "testing": ("test", "train"),
    "train": ("train", "test"), "training": ("train", "test"), "intrain": ("train", "test"),
}  # fmt: skip
_ALL_FLAGS = _FLAGS | _PLAIN_FLAGS
_YES, _NO = frozenset({"1", "1.0", "true", "t", "yes", "y"}), frozenset({"0", "0.0", "false", "f", "no", "n"})
# Numbers of splits, as in CelebA's list of partitions.
_BY_NUMBER = {"0": "train", "1": "val", "2": "test"}
_MAX_WORDS = 6


@dataclass(frozen=True)
class RowSplits:
    """The split of each row, the columns that say so, and notes for the user."""

    splits: tuple[str, ...]
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def find_row_splits(table: Table, images: str, source: object) -> RowSplits | None:
    """The splits that the columns of a table give; None without such columns.

    `images` is the name of the image column. Raises DataError, naming `source`, for a word that is no split.
    """
    columns = {name: _texts(table, name) for name in table.columns if name != images}
    found = {name: cells for name, cells in columns.items() if cells is not None}
    by_words = [
        RowSplits(*_read_words(name, cells, f"{source}: column {name!r}"))
        for name, cells in found.items()
        if _is_split_column(name, cells)
    ]
    if len({each.splits for each in by_words}) > 1:
        first, second = (each.columns[0] for each in by_words[:2])
        raise DataError(f"{source}: the columns {first!r} and {second!r} give different splits: keep one")
    if by_words:
        return by_words[0]
    flags = _flag_columns(found)
    return _read_flags(flags, source) if flags else None


def _flag_columns(columns: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """The columns of yes and no that say whether a row is of a split."""
    flags = {name: cells for name, cells in columns.items() if _letters(name) in _FLAGS}
    yes_no = {
        name: cells
        for name, cells in columns.items()
        if all(len(cell) < 6 and cell.lower() in _YES | _NO for cell in cells)
    }
    plain = {name: cells for name, cells in yes_no.items() if _letters(name) in _PLAIN_FLAGS}
    others = [cells for name, cells in yes_no.items() if name not in plain and name not in flags]
    is_one_hot = others and all(
        sum(cell.lower() in _YES for cell in row) == 1 for row in zip(*others, *plain.values(), strict=True)
    )
    return flags if is_one_hot else flags | plain


def unused_fold_note(table: Table) -> str | None:
    """A note on a column of numbered folds: cross-validation is not done."""
    for name in table.columns:
        cells = _texts(table, name)
        if cells and _letters(name) in ("fold", "folds", "kfold") and len(set(cells)) > 1:
            values = ", ".join(sorted(set(cells))[:_MAX_WORDS])
            return f"column {name!r} ({values}) numbers folds and is not used: the val split is cut by timebox"
    return None


def _texts(table: Table, name: str) -> list[str] | None:
    """The cells as stripped text, empty ones as ""; None for a column of encoded images."""
    cells = table.columns[name]
    if any(isinstance(cell, memoryview) for cell in cells):
        return None
    return [str(cell).strip() if cell is not None else "" for cell in cells]


def _letters(name: str) -> str:
    return "".join(re.findall("[a-z]+", name.lower()))


def _is_split_column(name: str, cells: Sequence[str]) -> bool:
    letters, values = _letters(name), set(cells)
    words = {value for value in values if split_of(value)}
    if letters in _NAMES:
        return True
    if letters in _POSSIBLE_NAMES:
        return bool(words) or (letters == "partition" and values == set(_BY_NUMBER))
    # Any other name: a column that holds nothing but splits, two of them at least.
    return words == values and len({split_of(word) for word in words}) > 1


def _read_words(
    name: str, cells: Sequence[str], where: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    values = Counter(cells)
    plain = {value: value.removesuffix(".0") for value in values}
    if set(plain.values()) == set(_BY_NUMBER):
        splits = tuple(_BY_NUMBER[plain[cell]] for cell in cells)
        counts = Counter(splits)
        if counts["train"] > max(counts["val"], counts["test"]):
            return splits, (name,), (f"column {name!r}: 0 is read as train, 1 as val and 2 as test",)
    unknown = [value for value in values if split_of(value) is None]
    if unknown:
        listed = ", ".join(f"{value or '(empty)'} ({number:,})" for value, number in values.most_common(_MAX_WORDS))
        more = ", ..." if len(values) > _MAX_WORDS else ""
        raise DataError(
            f"{where} holds {listed}{more}, and {unknown[0] or '(empty)'!r} is no split: write train, val or test, or "
            "rename the column if it says something else"
        )
    return tuple(str(split_of(cell)) for cell in cells), (name,), ()


def _read_flags(flags: Mapping[str, Sequence[str]], source: object) -> RowSplits:
    num_rows = len(next(iter(flags.values())))
    splits = ["train"] * num_rows
    listed, held_out = " and ".join(map(repr, flags)), set()
    # A row that one column holds out is held out: is_test after is_valid, is_train first.
    for name in sorted(flags, key=lambda name: ("train", "val", "test").index(_ALL_FLAGS[_letters(name)][0])):
        yes, no = _ALL_FLAGS[_letters(name)]
        for row, cell in enumerate(flags[name]):
            if cell.lower() not in _YES | _NO:
                raise DataError(
                    f"{source}: column {name!r} has {cell or '(empty)'!r} in row {row + 1}: it must be 0 or 1, or True "
                    "or False, to say which split a row belongs to"
                )
            split = yes if cell.lower() in _YES else no
            if cell.lower() in _YES and split != "train" and splits[row] not in ("train", split) and row in held_out:
                raise DataError(f"{source}: row {row + 1} is of {splits[row]} and of {split}, by its columns {listed}")
            if cell.lower() in _YES and split != "train":
                held_out.add(row)
            splits[row] = split if split != "train" else splits[row]
    num_held_out = sum(split != "train" for split in splits)
    if 2 * num_held_out > num_rows:
        raise DataError(
            f"{source}: {listed} would hold out {num_held_out:,} of {num_rows:,} rows and leave few to train on: "
            "rename what says something else"
        )
    meaning = "; ".join(
        f"{name!r}: 1 is {_ALL_FLAGS[_letters(name)][0]}, 0 {_ALL_FLAGS[_letters(name)][1]}" for name in flags
    )
    return RowSplits(tuple(splits), tuple(flags), (f"splits by column {meaning}",))
