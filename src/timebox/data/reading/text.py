"""File names and lists as text for notes, errors and directory names."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from timebox.errors import as_unicode


def abbreviate_list(names: Sequence[str], limit: int = 3) -> str:
    """The first `limit` names, printable, with an ellipsis if there are more: "a, b, c, ..."."""
    return ", ".join(map(printable, names[:limit])) + (", ..." if len(names) > limit else "")


def first_repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs more than once; None where all are distinct."""
    return next((name for name, number in Counter(names).items() if number > 1), None)


def printable(name: str) -> str:
    """A file name that UTF-8 can encode, in any locale: bytes that are not UTF-8 become escapes, as in "caf\\xe9"."""
    return as_unicode(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def relative_name(path: Path, source: Path) -> str:
    """A path in `source`, relative to it and printable, with / between folders."""
    return printable(path.relative_to(source).as_posix())


def short_name(path: Path) -> str:
    """The last part of a path, without suffixes, usable as a directory name: "My photos.npz" -> "My-photos"."""
    path = path.resolve()
    stem = printable(path.name if path.is_dir() else path.name.split(".")[0])
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "data"


def sort_naturally(names: Sequence[str]) -> list[str]:
    """Names in order: by number where all are numbers ("2" before "10"), else alphabetically."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
