"""Reads CSV and TSV tables, with or without a header, separated by comma, semicolon, tab or bar."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import first_repeated
from timebox.data.tables.files.table import Cell, Table
from timebox.data.tables.files.table_memory import TableMemory
from timebox.data.tables.files.text_lines import lines_of, open_text
from timebox.data.tables.image_paths import is_image_path
from timebox.errors import DataError

_SEPARATORS = {".csv": ",;\t|", ".tsv": "\t"}
_NUM_SAMPLED_LINES, _NUM_SAMPLED_CHARACTERS = 50, 1 << 20
_MAX_CELL_CHARACTERS = 1 << 27  # a cell may hold an image in base64
_EXCEL_SEPARATOR = re.compile(r"sep=.\r?\n")  # a first line of Excel, which names the separator


def read_csv(path: Path, options: ReadOptions) -> Table:
    """Read a table of UTF-8 text; short rows are padded with None. Raises DataError where the file is not a table."""
    memory = TableMemory(path)
    separator = _find_separator(_first_lines(path), _SEPARATORS[path.suffix.lower()])
    with open_text(path) as text:
        rows = list(_rows(_lines(text, separator, path, memory), separator, path, options))
    if not rows:
        raise DataError(f"{path}: holds no rows")
    names = _pop_header(rows, path)
    if not rows:
        raise DataError(f"{path}: holds column names, but no rows")
    longest = max(map(len, rows))
    if longest > len(names):
        long = next(number for number, row in enumerate(rows, 1) if len(row) == longest)
        raise DataError(f"{path}: row {long} has {longest} cells, but there are {len(names)} columns")
    memory.check(len(rows) * len(names) - sum(map(len, rows)))
    columns: dict[str, list[Cell]] = {
        name: [row[i] or None if i < len(row) else None for row in rows] for i, name in enumerate(names)
    }
    return Table(columns, {})


def _first_lines(path: Path) -> list[str]:
    """The first lines without their ends, and without Excel's ``sep=`` line."""
    lines: list[str] = []
    room = _NUM_SAMPLED_CHARACTERS
    with open_text(path) as text:
        while len(lines) < _NUM_SAMPLED_LINES and (line := text.readline(room)):
            room -= len(line)
            if lines or not _EXCEL_SEPARATOR.fullmatch(line):
                lines.append(line.rstrip("\r\n"))
    return lines


def _lines(text: TextIO, separator: str, path: Path, memory: TableMemory) -> Iterator[str]:
    """The lines after Excel's ``sep=`` line, their cells counted."""
    for number, line in enumerate(lines_of(text, path)):
        if number or not _EXCEL_SEPARATOR.fullmatch(line):
            memory.add(line.count(separator) + 1, len(line))
            yield line


def _rows(lines: Iterator[str], separator: str, path: Path, options: ReadOptions) -> Iterator[list[str]]:
    before = csv.field_size_limit(_MAX_CELL_CHARACTERS)
    try:
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        for number, row in enumerate(reader):
            if number % 1024 == 0:
                options.time.check()
            if row:
                yield row
    except csv.Error as error:
        raise DataError(f"{path}: not a table of separated cells: {error}") from error
    finally:
        csv.field_size_limit(before)


def _find_separator(lines: list[str], allowed: str) -> str:
    """The separator that divides most of the first lines into the same number of cells, at least two."""

    def fitness(separator: str) -> tuple[int, int]:
        counts = Counter(line.count(separator) for line in lines if line)
        num_separators, num_lines = max(counts.items(), key=lambda item: item[1], default=(0, 0))
        return (num_lines if num_separators else 0), num_separators

    return max(allowed, key=fitness)


def _pop_header(rows: list[list[str]], path: Path) -> list[str]:
    """Remove the header from `rows` and return the column names; numbered names where the first row holds an image."""
    first = rows[0]
    if any(map(is_image_path, first)):
        return [f"column {number}" for number in range(1, len(first) + 1)]
    del rows[0]
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(first, 1)]
    if (repeated := first_repeated(names)) is not None:
        raise DataError(f"{path}: two columns are named {repeated!r}; the first row must name the columns")
    return names
