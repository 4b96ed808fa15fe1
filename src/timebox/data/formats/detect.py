"""Format, the interface of a reader, and detect, which finds the format of a path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from timebox.data.dataset import LoadedData
from timebox.data.formats.folder import Folder
from timebox.data.reading.listing import only_subfolder, split_of
from timebox.data.reading.options import ReadOptions


class Format(Protocol):
    """One way of storing a data set."""

    @property
    def name(self) -> str:
        """The format as error messages list it: "a folder of class folders"."""

    def matches(self, path: Path) -> bool:
        """Whether `path`, which exists, is stored in this format. Must be fast: file names and first bytes only."""

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        """Read a data set. Raises DataError that names the file at fault."""


def detect(path: Path, formats: Sequence[Format]) -> tuple[Format, Path] | None:
    """The first of `formats` that matches a path, and the path to read; None where no format matches.

    A folder that holds nothing but one other folder is searched inside: nearly every folder looks like a folder of
    class folders.
    """
    match = next((candidate for candidate in formats if candidate.matches(path)), None)
    inner = only_subfolder(path) if isinstance(match, Folder) else None
    if inner and split_of(inner.name) is None and (inner_match := detect(inner, formats)):
        return inner_match
    return (match, path) if match else None
