"""Paths: as users write them, with `~`; as texts of records and messages; and the user's cache directory.

Every path of a user passes :func:`expand_user`: options by their config, arguments of Python functions where a file or
a directory is opened.
"""

import os
import re
import shlex
from pathlib import Path

from timebox.errors import UsageError

# Control characters, line and paragraph separators, and bytes of file names that are no text.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def expand_user(path: str | os.PathLike[str]) -> str:
    """A path with the home directory in place of a leading ``~`` or ``~name``, in the encoding of the file system.

    The ``~name`` of an unknown user is an ordinary file name. Raises UsageError for ``~`` where the user has no home
    directory: a folder called ``~`` would be created otherwise.
    """
    text = os.fspath(path)
    expanded = os.path.expanduser(text) if text[:1] == "~" else text  # noqa: PTH111  # Path raises
    if expanded == text and re.match("~($|/)", text):
        raise UsageError(f"{text!r} cannot be found: this user has no home directory; write the path without ~")
    try:
        os.fsencode(expanded)
    except UnicodeEncodeError:  # a record of another locale: names of files are bytes, which this one decodes otherwise
        try:
            return os.fsdecode(expanded.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            return expanded  # no file can have this name, which opening it reports
    return expanded


def user_cache() -> Path | None:
    """timebox's folder in the user's cache directory; None for a user without a home directory."""
    import platformdirs  # not needed by every command

    try:
        folder = Path(platformdirs.user_cache_path("timebox"))
    except RuntimeError:  # neither HOME nor an entry for this user
        return None
    return folder if folder.is_absolute() else None


def as_unicode(name: str) -> str:
    """A file name with all that is UTF-8 in it decoded as such, whatever the locale; other bytes stay surrogates."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other surrogates, which no file name has
        return name


def one_line(text: str) -> str:
    r"""A text in which nothing breaks a line: ``\n`` for a line break in a file name, ``\xff`` for a byte."""
    return _NOT_PRINTABLE.sub(lambda found: _escaped(found[0]), as_unicode(text))


def shell_quote(path: str | os.PathLike[str]) -> str:
    r"""A path as one word of a command line, in one line: with ``$'…\n…'`` where it holds what cannot be printed."""
    text = as_unicode(os.fspath(path))
    if not _NOT_PRINTABLE.search(text):
        return shlex.quote(text)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{one_line(quoted)}'"


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
