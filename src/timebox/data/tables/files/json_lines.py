"""Reads JSON Lines: an object with the name of an image file and its label in each line."""

import json
from pathlib import Path

from timebox.data.reading.options import ReadOptions
from timebox.data.tables.files.table import Cell, Table, join_list
from timebox.data.tables.files.table_memory import TableMemory
from timebox.data.tables.files.text_lines import lines_of, open_text
from timebox.errors import DataError

# Longer lines are parsed only where their values fit into memory: an empty object is two characters, and 72 bytes.
_LONG_LINE, _VALUE_BYTES = 1 << 20, 72


def read_json_lines(path: Path, options: ReadOptions) -> Table:
    """Read a table of texts, numbers and booleans, one object a line; values of other types are left out.

    Raises DataError for a line that is no JSON object.
    """
    memory = TableMemory(path)
    columns: dict[str, list[Cell]] = {}
    num_rows = 0
    with open_text(path) as text:
        for number, line in enumerate(lines_of(text, path), 1):
            if number % 1024 == 0:
                options.time.check()
            if not line.strip():
                continue
            values = _parse(line, number, path, memory)
            memory.add(0, len(line))
            num_columns = len(columns) + sum(name not in columns for name in values)
            memory.check(num_columns * (num_rows + 1))  # lines that lack a column have an empty cell in it
            for name, value in values.items():
                cells = columns.setdefault(name, [])
                cells.extend([None] * (num_rows - len(cells)))
                value = join_list(value) if isinstance(value, list) else value
                cells.append(str(value) if isinstance(value, str | int | float) else None)
            num_rows += 1
    if not num_rows:
        raise DataError(f"{path}: holds no rows")
    for cells in columns.values():
        cells.extend([None] * (num_rows - len(cells)))
    return Table(columns, {})


def _parse(line: str, number: int, path: Path, memory: TableMemory) -> dict[str, object]:
    """The JSON object in a line."""
    if len(line) > _LONG_LINE:
        num_values = sum(map(line.count, "[{:,"))
        memory.check(0, working_bytes=len(line) + num_values * _VALUE_BYTES)
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {number} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: line {number} is no JSON object")
    return values
