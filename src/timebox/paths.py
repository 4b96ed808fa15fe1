"""Paths: as users write them, with `~`; as words of a command line; and the user's cache directory.

Every path of a user passes :func:`expand_user`: options by their config, arguments of Python functions where a file or
a directory is opened.
"""

import os
import re
import shlex
from pathlib import Path

from timebox.errors import UsageError, as_unicode, is_printable, one_line

CACHE_VARIABLE = "TIMEBOX_CACHE"


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


def cache_folder() -> Path | None:
    """The folder that TIMEBOX_CACHE names, else :func:`user_cache`; None where there is neither."""
    root = os.environ.get(CACHE_VARIABLE) or user_cache()
    return Path(expand_user(root)) if root else None


def shell_quote(path: str | os.PathLike[str]) -> str:
    r"""A path as one word of a command line, in one line: with ``$'…\n…'`` where it holds what cannot be printed."""
    text = as_unicode(os.fspath(path))
    if is_printable(text):
        return shlex.quote(text)
    quoted = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{one_line(quoted)}'"
