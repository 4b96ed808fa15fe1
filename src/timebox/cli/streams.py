"""Standard streams: those that the caller has closed, encodings that cannot express all that is written, and a guard
before the terminal."""

import codecs
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO, cast

from timebox.errors import one_line, without_controls, without_passwords

# In place of what an encoding cannot express. Braille dots, of a curve, become full stops.
_PLAIN = {
    "×": "x",
    "…": "...",
    "·": "-",
    "–": "-",
    "→": "->",
    "─": "-",
    "━": "=",
    "▲": "^",
    "└": "+",
    "│": "|",
    "±": "+-",
}
_ERRORS = "timebox-plain"


def open_closed_streams() -> None:
    """Connect standard streams that the caller closed, as in ``2>&-``, with the null device.

    The next file opened would get the number of a closed stream, and everything written to that stream. Call this
    before other files are opened; the number of a new file is always the lowest that is free.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):  # a machine without a null device
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            with suppress(OSError):
                setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


class GuardedStream:
    """A stream on which control characters are escaped and passwords hidden, whoever writes: a warning or a traceback
    of some library may quote the name of a file."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        self.stream.write(without_controls(without_passwords(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guard_stderr() -> None:
    """Put a guard before stderr. :func:`unguarded` is for what sends colours to a terminal itself."""
    if sys.stderr is not None and not isinstance(sys.stderr, GuardedStream):
        sys.stderr = cast(TextIO, GuardedStream(sys.stderr))


def unguarded(stream: TextIO) -> TextIO:
    """The stream behind a guard."""
    return stream.stream if isinstance(stream, GuardedStream) else stream


def make_encodable(*streams: TextIO | None) -> None:
    r"""Make streams write what their encoding lacks in plain characters: ``->`` for an arrow, ``\xf6`` for a letter."""
    codecs.register_error(_ERRORS, _plain)
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors=_ERRORS)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain_character, error.object[error.start : error.end])), error.end


def _plain_character(character: str) -> str:
    if 0x2800 <= ord(character) <= 0x28FF:
        return " " if character == "\u2800" else "."
    return _PLAIN.get(character) or one_line(character).encode("ascii", "backslashreplace").decode("ascii")
