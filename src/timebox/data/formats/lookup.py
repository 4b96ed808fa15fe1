"""The image files that texts in a table mean."""

from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from timebox.data.formats.listing import image_paths


class Lookup:
    """Finds image files by what a table calls them: a path from the folder, or from the one above it; the end of a
    path, its last folder at least; a file name alone; each with or without the suffix.

    Args:
        folder: where the table lies; files are looked for below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, text: str, split: str | None = None) -> Path | None:
        """The file, or None where there is none, or there are several and no folder named `split` tells which."""
        name = text.strip().replace("\\", "/")
        if not name or "\0" in name or len(name) > 4096:
            return None
        for folder in (self._folder, self._folder.parent):
            if (direct := folder / name).is_file():
                return direct
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".", "..")]
        if not parts:
            return None
        found = self._by_name.get(parts[-1]) or self._by_stem.get(parts[-1], [])
        for length in range(len(parts), min(len(parts), 2) - 1, -1):
            fitting = [path for path in found if _ends_with(path, parts[-length:])]
            if len(fitting) > 1 and split is not None:
                fitting = [path for path in fitting if split in map(str.lower, path.relative_to(self._folder).parts)]
            if len(fitting) == 1:
                return fitting[0]
        return None

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


def _ends_with(path: Path, parts: list[str]) -> bool:
    """Whether the folders of a path end as those of another, whatever the suffix of the file."""
    return list(path.parent.parts[len(path.parent.parts) - len(parts) + 1 :]) == parts[:-1]
