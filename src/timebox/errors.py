"""The exceptions that timebox raises on purpose, how their messages name options, and texts that are safe to print.

The command line prints each as one line on stderr and exits with status 2 (3 for :class:`OutputError` once a model has
been trained). Any other exception is a defect of timebox itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from math import ceil

# Control characters, line and paragraph separators, changes of the direction of writing, which make a name look like
# another, and bytes of file names that are no text.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Control characters but tab and line break, and changes of the direction of writing: a terminal obeys them.
_TERMINAL_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# In place of a password.
HIDDEN = "***"
_SECRET = r"pass|pwd|secret|token|credential|(?:api|access|private)[_-]?key|odbc_connect|\bdsn\b"
_SECRET_NAME = re.compile(_SECRET, re.IGNORECASE)
# scheme://user:password@host; a user may hold an @. The patterns take a time in proportion to the text: names of data
# are in messages, and may be long.
_WORD, _URL_USER = re.compile(r"[^\s'\"]+"), re.compile(r"\w:/{1,3}[^:/]*:")
# ?password=…, &token=…; and of a list of words such as "host=h password=…".
_PARAMETER = re.compile(r"(?:^|[?&;#\s])([\w.%-]+)=")
_VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|[^&;#\s'\"]+")
# Options whose flag is not their name, and that take a list of texts.
_LIST_FLAGS = {"settings": "--set", "recipes": "--recipe", "callbacks": "--callback"}
_names_flags = False


class TimeboxError(Exception):
    """Base class. The message names the argument or file, its value, the values allowed, and what to do.

    >>> import timebox
    >>> try:
    ...     timebox.train("photos", budget="soon")
    ... except timebox.TimeboxError as error:
    ...     print(type(error).__name__)
    BudgetError
    """

    def __str__(self) -> str:
        """The message in one line: line breaks in it, as of a file name, are escaped, and passwords are hidden."""
        return one_line(without_passwords(super().__str__()))


class UsageError(TimeboxError, ValueError):
    """An argument that is unknown, out of range, or in conflict with another."""


class ArgumentError(UsageError, TypeError):
    """An argument that a function does not have, or lacks."""


class DataError(TimeboxError, ValueError):
    """Data that cannot be read, or that no classifier can be trained on."""


class BudgetError(UsageError):
    """A budget that is too short, negative or not a duration.

    Attributes:
        smallest_seconds: for one that is too short, a budget with which the same command works, if that is known.
    """

    smallest_seconds: int | None = None

    @classmethod
    def too_short(cls, message: str, smallest_seconds: float) -> "BudgetError":
        """An error that ends by naming a budget that is long enough, rounded up to whole seconds."""
        seconds = ceil(smallest_seconds)
        error = cls(f"{message}; use at least {seconds}s")
        error.smallest_seconds = seconds
        return error


class RunError(TimeboxError):
    """A run directory, or a file of one, that is missing or damaged."""


class OutputError(TimeboxError, OSError):
    """A file or directory that cannot be written."""


# The reason of a rank failure where the process has left none.
NO_ANSWER = "it does not answer"


class RankFailureError(TimeboxError):
    """Processes that train together have failed: ``failed_ranks`` has the reason by rank, ``lines`` a line each."""

    def __init__(self, failed_ranks: Mapping[int, str], lines: Sequence[str]) -> None:
        super().__init__(f"lost {'; '.join(lines)}")
        self.failed_ranks, self.lines = dict(failed_ranks), tuple(lines)


def flag_of(name: str, is_on_by_default: bool = False) -> str:
    """The flag of an option on the command line; ``--no-name`` for one that is on by default."""
    return _LIST_FLAGS.get(name, f"--{'no-' * is_on_by_default}{name.replace('_', '-')}")


def option_text(name: str, value: object = None) -> str:
    """An option in a message, with a value or without: ``val="PATH"`` in Python, ``--val PATH`` on the command line."""
    if not _names_flags:
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        return name if value is None else f"{name}={f'[{shown}]' if name in _LIST_FLAGS else shown}"
    flag = flag_of(name, value is False)
    return flag if value is None or isinstance(value, bool) else f"{flag} {value}"


@contextmanager
def flags_in_messages() -> Iterator[None]:
    """Within the block, in all threads, messages name options as flags of the command line."""
    global _names_flags
    before, _names_flags = _names_flags, True
    try:
        yield
    finally:
        _names_flags = before


def as_unicode(name: str) -> str:
    """A file name with all that is UTF-8 in it decoded as such, whatever the locale; other bytes stay surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other surrogates, which no file name has
        return name


def one_line(text: str) -> str:
    r"""A text in which nothing breaks a line: ``\n`` for a line break in a file name, ``\xff`` for a byte."""
    return _NOT_PRINTABLE.sub(lambda found: _escaped(found[0]), as_unicode(text))


def without_controls(text: str) -> str:
    r"""A text in which all that a terminal obeys, but tabs and line breaks, is escaped: ``\x1b`` before a colour."""
    return _TERMINAL_CONTROL.sub(lambda found: _escaped(found[0]), text)


def without_passwords(text: str) -> str:
    """A text with ``***`` in place of the passwords in its URLs, and of values as of ``password=`` and ``token=``.

    The passwords of a URL that is known are hidden by :mod:`timebox.configs.storage_url`, however they are written.
    """
    text, shown_from, shown = _WORD.sub(_without_url_password, text), 0, ""
    for value in _secret_matches(text):
        shown += text[shown_from : value.start()] + HIDDEN
        shown_from = value.end()
    return shown + text[shown_from:]


def secret_values(text: str) -> list[str]:
    """The values of parameters such as ``password=`` in a text."""
    return [value[0].strip("'\"") for value in _secret_matches(text)]


def _secret_matches(text: str) -> Iterator[re.Match[str]]:
    """The values of parameters with the name of a secret."""
    end = 0
    for name in _PARAMETER.finditer(text):
        if name.start() >= end and is_secret_name(name[1]) and (value := _VALUE.match(text, name.end())):
            yield value
            end = value.end()


def _without_url_password(word: re.Match[str]) -> str:
    before, at, after = word[0].rpartition("@")
    user = _URL_USER.search(before) if at else None
    return f"{before[: user.end()]}{HIDDEN}@{after}" if user else word[0]


def is_secret_name(name: str) -> bool:
    """Whether a parameter of this name may hold a password."""
    return _SECRET_NAME.search(name) is not None


def is_printable(text: str) -> bool:
    """Whether a text holds nothing that :func:`one_line` escapes."""
    return _NOT_PRINTABLE.search(text) is None


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def require_serve() -> None:
    """Raise UsageError where a package of the extra ``serve`` is not installed. None is imported."""
    for name in ("starlette", "uvicorn", "python_multipart", "httptools"):
        if find_spec(name) is None:
            raise UsageError(f"this needs {name}: pip install 'timebox-vision[serve]'")
