"""Paths and messages with ``~`` in place of the home directory, which holds the user's name."""

import os
import re
from contextlib import suppress
from pathlib import Path

from timebox.errors import one_line


def shown_path(path: Path) -> str:
    """A path in one line, with ``~`` for the home directory."""
    return without_home(one_line(str(path)))


def without_home(text: str) -> str:
    """A text with ``~`` in place of the home directory wherever it stands, also where links lead to it."""
    for home in _homes():
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return text


def _homes() -> list[str]:
    """The home directories of this user, by HOME and by the list of users, the longest first."""
    homes = {os.environ.get("HOME", ""), os.environ.get("USERPROFILE", "")}
    with suppress(ImportError, KeyError):  # Windows; a user without an entry
        import pwd

        homes.add(pwd.getpwuid(os.getuid()).pw_dir)
    homes |= {os.path.realpath(home) for home in homes if home}
    return sorted({home.rstrip("/\\") for home in homes if len(Path(home).parts) > 1}, key=len, reverse=True)
