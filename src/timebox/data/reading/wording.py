"""Names and numbers as they are written in names, notes and errors."""

import os
import re
from collections.abc import Sequence
from pathlib import Path


def count(number: int, noun: str) -> str:
    """A number of things: "1 file", "2,000 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def some(names: Sequence[str]) -> str:
    """The first few names, as they can be written down."""
    return ", ".join(printable(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")


def printable(name: str) -> str:
    """A file name that can be written down: a byte that is no UTF-8 becomes its number, as in "caf\\xe9"."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def short_name(path: Path) -> str:
    """A name for directories made from a path: "My photos.npz" -> "My-photos"."""
    path = path.resolve()
    stem = printable(path.name if path.is_dir() else path.name.split(".")[0])
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "data"


def natural_order(names: Sequence[str]) -> list[str]:
    """Sorted; as numbers if all are ("2" before "10")."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)
