"""Format: the interface of a reader."""

from pathlib import Path
from typing import Protocol

from timebox.data.dataset import LoadedData
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
