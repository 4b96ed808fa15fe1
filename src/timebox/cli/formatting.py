"""Formatting of results: numbers, percentages and tables for the terminal, strict JSON for programs."""

import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from timebox.errors import OutputError, as_unicode, one_line, without_controls
from timebox.progress.terminal import print_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

PLAIN_WIDTH = 10_000  # columns of a file or a pipe, so that no line is wrapped or cut


def results_width() -> int:
    """Columns that a line of results may take."""
    return get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH


def write(text: str) -> None:
    """Writes to stdout and flushes. Control characters but tabs and line breaks are escaped. Raises OutputError if that
    fails, as on a full disk; BrokenPipeError passes."""
    write_raw(without_controls(text))


def write_raw(text: str) -> None:
    """Writes a text in which the caller has escaped all that a terminal would obey; otherwise as :func:`write`."""
    try:
        sys.stdout.write(as_unicode(text))
        sys.stdout.flush()
    except OSError as error:
        # Redirect stdout to /dev/null, or flushing its buffer would fail again when Python exits.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def say(line: str) -> None:
    """Prints a line on stderr, see :func:`print_line`."""
    print_line(line, sys.stderr)


def show(*renderables: "RenderableType") -> None:
    """Prints text and tables on stdout: colours on a terminal, plain lines elsewhere. Text is never cut into lines,
    so that paths and commands can be copied. Control characters in it are escaped.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    buffer = io.StringIO()
    terminal = sys.stdout.isatty()
    console = Console(
        file=buffer, force_terminal=terminal, width=results_width(), highlight=False, markup=False, emoji=False
    )
    for renderable in renderables:
        if isinstance(renderable, Table):
            console.print(Padding(renderable, (0, 0, 0, 1)))
        elif isinstance(renderable, str):
            console.print("\n".join(map(one_line, renderable.split("\n"))), soft_wrap=True)
        else:
            console.print(renderable, soft_wrap=True)
    text = buffer.getvalue()
    write_raw(text if terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """A table whose first column is text and whose others are numbers, aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, header in enumerate(headers):
        result.add_column(Text(one_line(header)), justify="right" if column else "left", no_wrap=bool(column))
    for row in rows:
        result.add_row(*(Text(one_line(cell)) for cell in row))
    return result


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Lines of a label and its value; a repeated label is left blank, an empty one begins a new block.

    A line break in a value is escaped.
    """
    lines, last = [], ""
    for label, value in rows:
        lines.append(one_line(f"  {'' if label == last else label:<15}{value}".rstrip()))
        last = label
    return "\n".join(lines)


def jsonable(value: object) -> object:
    """The value converted for strict JSON: numbers that are not finite become null, arrays lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, str | PurePath):
        return as_unicode(str(value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "tolist"):  # numpy's arrays and numbers, without importing numpy
        return jsonable(value.tolist())
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    return value


def json_line(value: object) -> str:
    """The value as one line of strict JSON."""
    return json.dumps(jsonable(value), allow_nan=False) + "\n"
