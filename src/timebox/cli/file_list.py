"""A list of files on a stream, as tools of any system write it."""

import codecs
import os
from collections.abc import Iterator
from typing import IO

_CHUNK_BYTES = 1 << 16
_START_BYTES = 4  # by which the encoding is known
_QUOTES = ("'", '"')


def read_names(stream: IO[bytes]) -> Iterator[str]:
    r"""The names in a list of files, as soon as they come.

    One a line, ended by ``\n``, ``\r\n`` or ``\r``; or separated by NUL bytes, as ``find -print0`` writes them, where
    a name may hold a line break. In UTF-8, or in UTF-16 as PowerShell writes it, with or without a
    byte-order mark. Bytes that are not UTF-8 are kept as the file system has them. Blank lines are left out, and so are
    a pair of quotes around a name, and spaces around the line, unless a file is named so.
    """
    for line, is_whole in _lines(stream):
        name = line if is_whole else _unquoted(line)
        if name:
            yield name


def _lines(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Each name as it is written, and whether it was ended by NUL, so that each character of it counts."""
    waiting, separator = "", ""
    for text in _texts(stream):
        waiting += text
        # A list is ended by NUL throughout, or not at all.
        separator = separator or ("\0" if "\0" in waiting else "\n" if "\n" in waiting else "")
        if separator:
            *complete, waiting = waiting.split(separator)
            yield from ((_as_file_name(line), separator == "\0") for line in complete)
    rest = [waiting] if separator else waiting.split("\r")
    yield from ((_as_file_name(line), separator == "\0") for line in rest)


def _texts(stream: IO[bytes]) -> Iterator[str]:
    """The text of a stream, in pieces as they come; bytes that are not UTF-8 as surrogates."""
    read = getattr(stream, "read1", stream.read)
    chunk: bytes = read(_CHUNK_BYTES)
    while 0 < len(chunk) < _START_BYTES and (more := read(_CHUNK_BYTES)):
        chunk += more
    chunk, encoding = _without_mark(chunk)
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8" else "replace")
    while chunk:
        yield decoder.decode(chunk)
        chunk = read(_CHUNK_BYTES)
    yield decoder.decode(b"", final=True)


def _without_mark(start: bytes) -> tuple[bytes, str]:
    """The bytes after a byte-order mark, and the encoding that it stands for."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if start.startswith(mark):
            return start[len(mark) :], encoding
    is_utf16 = len(start) >= _START_BYTES and start[0] and start[2] and not any(start[1:_START_BYTES:2])
    # Or names of one character, separated by NUL.
    return start, "utf-16-le" if is_utf16 and not os.path.lexists(start[:1]) else "utf-8"


def _as_file_name(name: str) -> str:
    """The name as the locale decodes the bytes of file names."""
    try:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    except UnicodeError:
        return name


def _unquoted(line: str) -> str:
    """A line without spaces around it, then without quotes around it; as it is where a file is named so."""
    line = line.removeprefix("\ufeff")
    if line.strip() != line and os.path.lexists(line):
        return line
    name = line.strip()
    is_quoted = len(name) > 2 and name[0] in _QUOTES and name[-1] == name[0]
    return name[1:-1] if is_quoted and not os.path.lexists(name) else name
