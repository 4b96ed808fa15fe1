"""OutsideFiles: image files that lie outside the folder of their source, named by a table or reached by links."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from timebox.data.reading.text import printable
from timebox.formatting import plural

_FILES_PER_CHECK = 256


@dataclass(frozen=True)
class OutsideFiles:
    """Image files of a source that lie outside its folder.

    Attributes:
        count: number of them.
        total: number of all image files that are read, wherever they lie.
        name: how the source names one of them.
        path: where that one lies, without symbolic links.
    """

    count: int
    total: int
    name: str
    path: str

    @property
    def sentence(self) -> str:
        """ "2 of 10 image files lie outside the folder of the data: ../a.png is /data/a.png"."""
        verb = "lies" if self.count == 1 else "lie"
        named = "" if self.name == self.path else f"{self.name} is "
        more = ", ..." if self.count > 1 else ""
        files = plural(self.total, "image file")
        return f"{self.count:,} of {files} {verb} outside the folder of the data: {named}{self.path}{more}"


def find_outside_files(
    source: Path, files: Iterable[tuple[str, Path]], check_time: Callable[[], None] = lambda: None
) -> OutsideFiles | None:
    """The files that do not lie in ``source``, or in its folder where it is a file; None where all do.

    Args:
        files: the name of each in the source, and its path, which may lead through symbolic links.
        check_time: called every few files; what it raises is passed on.
    """
    real_folder = cache(os.path.realpath)
    root = os.path.realpath(source if source.is_dir() else source.parent)
    inside = root.rstrip(os.sep) + os.sep
    count = total = 0
    first: tuple[str, str] | None = None
    for total, (name, path) in enumerate(files, start=1):
        if total % _FILES_PER_CHECK == 1:
            check_time()
        # Links are looked up once a folder: data sets have many files and few folders.
        place = os.path.realpath(path) if path.is_symlink() else f"{real_folder(path.parent)}{os.sep}{path.name}"
        if not place.startswith(inside):
            count += 1
            first = first or (printable(name), printable(place))
    return OutsideFiles(count, total, *first) if first else None
