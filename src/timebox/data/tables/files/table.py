"""Table, the cells of a table file by column."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIST_SEPARATOR = "\x1f"  # between the elements of a list, in a cell
Cell = str | memoryview | None  # text, an encoded image, or an empty cell


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


def join_list(values: Sequence[object]) -> object:
    """One value for a list: its only element, the position of the 1 of a one-hot list, else its elements as a text."""
    if len(values) < 2:
        return values[0] if values else None
    # A list of two may be one-hot, or hold the labels 0 and 1.
    are_flags = len(values) > 2 and all(isinstance(value, int | float) and value in (0, 1) for value in values)
    if are_flags and sum(map(bool, values)) == 1:
        return [bool(value) for value in values].index(True)
    return LIST_SEPARATOR.join(map(str, values))


def _preview(cell: Cell) -> str:
    if isinstance(cell, memoryview):
        return f"({len(cell):,} bytes)"
    text = repr(cell)
    return text if len(text) <= 40 else f"{text[:36]}...'"
