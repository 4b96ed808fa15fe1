"""The image files that texts in a table mean."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from timebox.data.reading.listing import image_paths, split_of

_MAX_CHARACTERS = 4096


class Lookup:
    """Finds image files by what a table calls them: a path from the folder; the end of a path, its last folder at
    least; a file name alone; each with or without the suffix; last, any path from where the table lies, or above it.

    Args:
        folder: where the table lies; files are looked for below it.
        confined: whether nothing outside of it is ever found, as of an archive.
    """

    def __init__(self, folder: Path, confined: bool = False) -> None:
        self._folder, self._confined = folder, confined

    def knows(self, text: str) -> bool:
        """Whether there is such a file, one or several."""
        return bool(self._candidates(text))

    def find(self, text: str, split: str | None = None) -> Path | None:
        """The file, or None where there is none, or there are several and no folder named for the split tells which."""
        found = self._candidates(text)
        if len(found) > 1 and split is not None:
            found = [path for path in found if split in map(split_of, path.relative_to(self._folder).parts)]
        return found[0] if len(found) == 1 else None

    def _candidates(self, text: str) -> list[Path]:
        name = text.strip().replace("\\", "/")
        if not name or "\0" in name or len(name) > _MAX_CHARACTERS:
            return []
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
        if not parts:
            return []
        if ".." not in parts and not name.startswith("/") and _is_file(self._folder / name):
            return [self._folder / name]
        if ".." not in parts and (found := self._below(parts)):
            return found
        if not self._confined:
            return next(([base / name] for base in (self._folder, self._folder.parent) if _is_file(base / name)), [])
        return []

    def _below(self, parts: list[str]) -> list[Path]:
        """Files below the folder that end like a path."""
        found = self._by_name.get(parts[-1]) or self._by_stem.get(parts[-1], [])
        for length in range(len(parts), min(len(parts), 2) - 1, -1):
            if fitting := [path for path in found if _ends_with(path, parts[-length:])]:
                return fitting
        return []

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = defaultdict(list)
        for path in image_paths(self._folder):
            names[path.name].append(path)
        return dict(names)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        stems: dict[str, list[Path]] = defaultdict(list)
        for paths in self._by_name.values():
            for path in paths:
                stems[path.stem].append(path)
        return dict(stems)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for one
        return False


def _ends_with(path: Path, parts: list[str]) -> bool:
    """Whether the folders of a path end as those of another, whatever the suffix of the file."""
    return list(path.parent.parts[len(path.parent.parts) - len(parts) + 1 :]) == parts[:-1]
