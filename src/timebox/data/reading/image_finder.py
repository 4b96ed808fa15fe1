"""ImageFinder: finds the image file that a cell of a table refers to."""

from functools import cached_property
from pathlib import Path, PurePosixPath

from timebox.data.reading.listing import image_paths, split_of

_MAX_CHARACTERS = 4096


class ImageFinder:
    """Finds image files by a path or a file name, as tables give them.

    In this order: a path relative to the folder of the table; files below it whose path ends the same, with at least
    the last folder of the text; a file name alone; each of these also without the suffix; last, unless `is_confined`
    as for tables in an archive, any path relative to the folder or its parent.
    """

    def __init__(self, folder: Path, is_confined: bool = False) -> None:
        self._folder, self._is_confined = folder, is_confined

    def has_image(self, text: str) -> bool:
        """Whether a text refers to at least one image file."""
        return bool(self._candidates(text))

    def find(self, text: str, split: str | None = None) -> Path | None:
        """The only file that a text refers to, or the only one of these below a folder named for `split`; else None."""
        candidates = self._candidates(text)
        if len(candidates) > 1 and split is not None:
            candidates = [path for path in candidates if split in map(split_of, path.relative_to(self._folder).parts)]
        return candidates[0] if len(candidates) == 1 else None

    def _candidates(self, text: str) -> list[Path]:
        name = text.strip().replace("\\", "/")
        if not name or "\0" in name or len(name) > _MAX_CHARACTERS:
            return []
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
        if not parts:
            return []
        if ".." not in parts and not name.startswith("/") and _is_file(self._folder / name):
            return [self._folder / name]
        if ".." not in parts and (below := self._find_below(parts)):
            return below
        if self._is_confined:
            return []
        return next(([base / name] for base in (self._folder, self._folder.parent) if _is_file(base / name)), [])

    def _find_below(self, parts: list[str]) -> list[Path]:
        """The files below the folder whose path has the longest common end with `parts`."""
        by_name, by_stem = self._images
        named = by_name.get(parts[-1]) or by_stem.get(parts[-1], [])
        for length in range(len(parts), min(len(parts), 2) - 1, -1):
            if matching := [path for path in named if _folders_end_with(path, parts[-length:])]:
                return matching
        return []

    @cached_property
    def _images(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """The images below the folder by name, and by name without suffix."""
        by_name: dict[str, list[Path]] = {}
        by_stem: dict[str, list[Path]] = {}
        for path in image_paths(self._folder):
            by_name.setdefault(path.name, []).append(path)
            by_stem.setdefault(path.stem, []).append(path)
        return by_name, by_stem


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # the name is too long
        return False


def _folders_end_with(path: Path, parts: list[str]) -> bool:
    """Whether the last folders of a path are those of `parts`, whose last element is a file name."""
    return list(path.parent.parts[len(path.parent.parts) - len(parts) + 1 :]) == parts[:-1]
