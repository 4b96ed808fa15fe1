"""Reads JSON Lines: an object with the name of an image file and its label in each line."""

import json
from pathlib import Path

from timebox.data.reading.options import ReadOptions
from timebox.data.tables.files.table import Cell, Table, join_list, read_table_bytes
from timebox.errors import DataError


def read_json_lines(path: Path, options: ReadOptions) -> Table:
    """Read a table of texts, numbers and booleans, one object a line; values of other types are left out.

    Raises DataError for a line that is no JSON object.
    """
    lines = read_table_bytes(path, options).removeprefix(b"\xef\xbb\xbf").splitlines()
    columns: dict[str, list[Cell]] = {}
    num_rows = 0
    for number, line in enumerate(lines, 1):
        if number % 1024 == 0:
            options.time.check()
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is no JSON: {error}") from error
        if not isinstance(values, dict):
            raise DataError(f"{path}: line {number} is no JSON object")
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
