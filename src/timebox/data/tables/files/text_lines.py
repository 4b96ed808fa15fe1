"""Reads table files of text line by line, so that a file takes no more memory than its cells."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

from timebox.errors import DataError
from timebox.files import open_regular

MAX_LINE_CHARACTERS = 1 << 28  # a line may hold an image in base64
_BLOCK_BYTES = 1 << 15


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A table file as UTF-8 text, without the byte order mark, line ends as they are.

    Reading raises DataError at bytes that are not UTF-8, and at a zero byte, as in the holes of a sparse file.
    """
    with open_regular(path) as file:
        buffered = io.BufferedReader(_CheckedText(file, path), _BLOCK_BYTES)
        yield io.TextIOWrapper(buffered, encoding="utf-8-sig", newline="")


def lines_of(text: TextIO, path: Path) -> Iterator[str]:
    """The lines of a text, with their ends. Raises DataError for a line that is too long for a table."""
    number = 0
    while line := text.readline(MAX_LINE_CHARACTERS):
        number += 1
        if len(line) == MAX_LINE_CHARACTERS:
            raise DataError(
                f"{path}: line {number} has {MAX_LINE_CHARACTERS:,} characters or more, the limit for a line of a table"
            )
        yield line


class _CheckedText(io.RawIOBase):
    """The bytes of a file, each checked before it is passed on."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        super().__init__()
        self._file, self._path = file, path
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        block = self._file.read(len(buffer))
        if (zero := block.find(b"\0")) >= 0:
            raise DataError(
                f"{self._path}: byte {self._position + zero:,} is zero, which no text holds: the file is damaged, or "
                "not saved as UTF-8"
            )
        pending = len(self._decoder.getstate()[0])
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            position = self._position - pending + error.start
            raise DataError(f"{self._path}: byte {position:,} is not UTF-8; save the table as UTF-8") from error
        self._position += len(block)
        buffer[: len(block)] = block
        return len(block)
