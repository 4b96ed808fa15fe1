"""What a path is stored as."""

from collections.abc import Sequence
from pathlib import Path

from timebox.data.formats.base import Format
from timebox.data.formats.folder import Folder
from timebox.data.reading.listing import only_folder, split_of


def detect(path: Path, formats: Sequence[Format]) -> tuple[Format, Path] | None:
    """The first of the formats that a path is stored in, and where.

    Nearly any folder could be one of class folders. So where it holds nothing but another one, that one is looked at.
    """
    found = next((candidate for candidate in formats if candidate.matches(path)), None)
    only = only_folder(path) if isinstance(found, Folder) else None
    if only and split_of(only.name) is None and (deeper := detect(only, formats)):
        return deeper
    return (found, path) if found else None
