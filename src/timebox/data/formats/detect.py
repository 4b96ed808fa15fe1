"""Format, the interface of a reader, and detect, which finds the format of a path."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from timebox.data.dataset import LoadedData
from timebox.data.folders.names import is_system_name
from timebox.data.reading.options import ReadOptions

# Suffixes of documents and metadata, which may lie beside the only folder of a source.
_DOCUMENT_SUFFIXES = {"", ".txt", ".md", ".rst", ".pdf", ".html", ".yml", ".yaml", ".json", ".bib"}


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

    A folder that holds nothing but one other folder, perhaps beside documents, is searched inside for a format that
    matches fewer paths than the last, the folder of images, does.
    """
    *specific, general = formats
    folder = path
    while True:
        if match := next((candidate for candidate in specific if candidate.matches(folder)), None):
            return match, folder
        inner = _only_subfolder(folder) if folder.is_dir() else None
        if inner is None:
            return (general, path) if general.matches(path) else None
        folder = inner


def _only_subfolder(folder: Path) -> Path | None:
    """The subfolder of a folder that holds nothing else, except perhaps documents; else None."""
    inside = [entry for entry in folder.iterdir() if not is_system_name(entry.name)]
    folders = [entry for entry in inside if entry.is_dir() and not entry.is_symlink()]  # links may form a cycle
    rest_is_documents = all(entry.suffix.lower() in _DOCUMENT_SUFFIXES for entry in inside if entry not in folders)
    return folders[0] if len(folders) == 1 and rest_is_documents else None
