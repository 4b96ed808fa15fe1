"""ImagePaths: finds the image files that the cells of a table name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from timebox.data.folders.names import split_of
from timebox.data.folders.tree import ImageFolder, is_image_name, scan
from timebox.data.reading.options import ReadOptions
from timebox.data.reading.text import abbreviate_list, printable

Parts = tuple[str, ...]
_Splits = set[str | None]

# Why a table in an archive must not be used.
OUTSIDE_ARCHIVE, LINK_IN_ARCHIVE = "which lies outside the archive", "a link in the archive, or a file behind one"
_MISSING = "No such file or directory"
_MAX_CHARACTERS = 4096
_SCHEME = re.compile(r"[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+:/")  # the letter of a drive, or what a URL begins with
_NUM_SAMPLED = 200
_MIN_OF_OTHER_SPLITS = 0.2  # of the rows of a table that labels images of several splits by their names alone


@dataclass(frozen=True)
class FoundPaths:
    """The files that cells name.

    Attributes:
        paths: one for each cell; a path that does not exist where `problems` says why.
        problems: why a cell has no file; "" where it has one. ``OUTSIDE_ARCHIVE`` or ``LINK_IN_ARCHIVE`` for one
            of a table in an archive that names a file elsewhere.
        note: how the files were found, where the cells are not plain paths.
    """

    paths: tuple[Path, ...]
    problems: tuple[str, ...]
    note: str | None


class ImagePaths:
    """Finds the files that a column of paths or names refers to, all cells by the same rule.

    The rule is the first that most cells agree with: paths relative to the folder of the table, or to the one above it;
    the same without leading folders that all of them share, relative to one folder below; for names without folders,
    the file of that name, where there is only one. Each may lack its suffix. A cell is never looked for in the folder
    of another split.

    Args:
        folder: the folder of the table.
        tree: the images below it; None to list them where they are needed.
        is_confined: whether only files in the folder count, as for tables in an archive.
        links: paths of the archive's links, which are not unpacked.
    """

    def __init__(
        self,
        folder: Path,
        tree: ImageFolder | None = None,
        is_confined: bool = False,
        links: frozenset[Path] = frozenset(),
    ) -> None:
        self._folder, self._tree, self._is_confined, self._links = folder, tree, is_confined, links

    @classmethod
    def of(cls, folder: Path, tree: ImageFolder | None, options: ReadOptions) -> "ImagePaths":
        """ImagePaths for a table that is read with ``options``: confined where it comes from an archive."""
        return cls(folder, tree, options.archive is not None, options.archive_links)

    def has_image(self, text: str) -> bool:
        """Whether a file of that path or name is there at all."""
        parts = _parts(text)
        return bool(parts) and (
            self._exact(text, self._folder) is not None
            or self._above(text) is not None
            or self._has_tail(parts)
            or (is_image_path(text) and self._refusal(text) is not None)
        )

    def _refusal(self, text: str) -> str | None:
        """Why a cell that names no file of the archive is refused: it leads out of it; None for any other."""
        if self._is_confined and leads_out(text):
            return OUTSIDE_ARCHIVE
        return self._link_refusal(self._missing(text))

    def _link_refusal(self, path: Path) -> str | None:
        is_link = self._is_confined and not self._links.isdisjoint((path, *path.parents))
        return LINK_IN_ARCHIVE if is_link else None

    def _has_tail(self, parts: Parts) -> bool:
        """Whether a file has that name, and lies in a folder of the same name if the path gives one."""
        return any(len(parts) == 1 or inner[-2:-1] == parts[-2:-1] for inner in self._named(parts))

    def find(self, texts: Sequence[str], split: str | None = None, is_by_row: bool = False) -> FoundPaths:
        """The files that cells name.

        Args:
            split: that of all cells; None where the table says nothing of splits.
            is_by_row: whether a column gives the split: then a file may lie in the folder of another one, unless this
                split has a folder too.
        """
        splits = {_split_of_parts(parts[:-1]) for parts in self._images} if self._needs_tree(texts) else set()
        allowed = _allowed_splits(split, is_by_row, splits)
        step = max(1, len(texts) // _NUM_SAMPLED)
        sample = [text for text in texts[::step] if _parts(text)]
        most = len(sample) / 2
        if sum(self._exact(text, self._folder) is not None for text in sample) >= most:
            return self._found([self._exact(text, self._folder) for text in texts], texts)
        if rule := self._shared_rule(sample, allowed):
            prefix, base = rule
            paths = [self._rebased(text, prefix, base) for text in texts]
            return self._found(paths, texts, prefix, base, _rule_note(prefix, base))
        if sum(self._above(text) is not None for text in sample) >= most:
            return self._found([self._above(text) for text in texts], texts)
        return self._by_name(texts, allowed, split)

    def split_of_file(self, path: Path) -> str | None:
        """The split whose folder a file lies in; None where it lies in none."""
        return _split_of_parts(self._relative(path)[:-1])

    def _found(
        self,
        paths: Sequence[Path | None],
        texts: Sequence[str],
        prefix: Parts = (),
        base: Parts = (),
        note: str | None = None,
    ) -> FoundPaths:
        folders = {_folder(text) for text, path in zip(texts, paths, strict=True) if path} - {""}

        def problem(text: str) -> str:
            # One of a table's absolute paths whose file is missing, while those beside it are there.
            parts = _parts(text)
            is_rebased = bool(prefix) and parts[: len(prefix)] == prefix and ".." not in parts
            if is_rebased or _folder(text) in folders:
                rest = parts[len(prefix) :] if is_rebased else _below(parts)
                return self._link_refusal(self._folder.joinpath(*base, *rest)) or _MISSING
            return self._refusal(text) or _MISSING

        problems = tuple("" if path else problem(text) for text, path in zip(texts, paths, strict=True))
        return FoundPaths(
            tuple(path or self._missing(text) for path, text in zip(paths, texts, strict=True)), problems, note
        )

    def _missing(self, text: str) -> Path:
        """A path for a file that is not there; always inside the folder."""
        return self._folder / "/".join(part for part in _parts(text) if part != "..")

    def _exact(self, text: str, base: Path) -> Path | None:
        """The file at a path relative to `base`, also without its suffix."""
        parts = _parts(text)
        if not parts or ".." in parts or text.strip().startswith("/"):
            return None
        path = base.joinpath(*parts)
        if _is_file(path):
            return path
        if base == self._folder and (same := self._by_spelling.get(_spelling(parts))) is not None:
            return base.joinpath(*same)
        if is_image_path(text):
            return None
        matching = [
            inner for inner in self._by_stem.get(parts[-1], []) if base == self._folder and inner[:-1] == parts[:-1]
        ]
        return base.joinpath(*matching[0]) if len(matching) == 1 else None

    def _above(self, text: str) -> Path | None:
        """The file at a path that leads out of the folder: absolute, with "..", or relative to the folder above."""
        name = text.strip().replace("\\", "/")
        if self._is_confined or not _parts(text):
            return None
        return next((base / name for base in (self._folder, self._folder.parent) if _is_file(base / name)), None)

    def _shared_rule(self, sample: Sequence[str], allowed: _Splits) -> tuple[Parts, Parts] | None:
        """(folders that all cells begin with and that are not there, the folder below that the rest is relative to)."""
        votes: Counter[tuple[Parts, Parts]] = Counter()
        for text in sample:
            parts = _below(_parts(text))
            for length in range(len(parts), 1, -1):
                tail = parts[-length:]
                bases = {inner[:-length] for inner in self._named(parts) if inner[-length:-1] == tail[:-1]}
                if rules := [(parts[:-length], base) for base in bases if _keeps_split(parts[:-length], base, allowed)]:
                    votes.update(rules)
                    break
        best = votes.most_common(1)
        return best[0][0] if best and 2 * best[0][1] > len(sample) else None

    def _rebased(self, text: str, prefix: Parts, base: Parts) -> Path | None:
        parts = _below(_parts(text))
        if parts[: len(prefix)] != prefix:
            return None
        rest = (*base, *parts[len(prefix) :])
        return self._exact("/".join(rest), self._folder)

    def _by_name(self, texts: Sequence[str], allowed: _Splits, split: str | None) -> FoundPaths:
        """The files by their names alone, each unique among the images of its split."""
        named = [self._named(parts) if len(parts := _parts(text)) == 1 else [] for text in texts]
        if split is None and self._label_several_splits(named, allowed):
            allowed = allowed | {"val", "test"}
        candidates = [[each for each in found if _split_of_parts(each[:-1]) in allowed] for found in named]
        paths = [self._folder.joinpath(*found[0]) if len(found) == 1 else None for found in candidates]
        problems = [
            "" if path else self._refusal(text) or _name_problem(everywhere, found)
            for text, path, everywhere, found in zip(texts, paths, named, candidates, strict=True)
        ]
        note = None
        if first := next(((text, path) for text, path in zip(texts, paths, strict=True) if path), None):
            where = printable("/".join(self._relative(first[1])))
            note = f"files are found by their names alone, as {first[0].strip()!r} at {where}"
        missing = (path or self._missing(text) for path, text in zip(paths, texts, strict=True))
        return FoundPaths(tuple(missing), tuple(problems), note)

    def _label_several_splits(self, named: Sequence[Sequence[Parts]], allowed: _Splits) -> bool:
        """Whether the names of a table without splits are unique in the whole tree, and many lie in val and test."""
        if any(len(found) > 1 for found in named):
            return False
        elsewhere = sum(_split_of_parts(found[0][:-1]) not in allowed for found in named if found)
        return elsewhere >= _MIN_OF_OTHER_SPLITS * len(named)

    def _needs_tree(self, texts: Sequence[str]) -> bool:
        """Whether some cells are no plain paths of files, so that the images below the folder must be listed."""
        return any(self._exact(text, self._folder) is None for text in texts[:_NUM_SAMPLED])

    def _named(self, parts: Parts) -> list[Parts]:
        """The images of the name that a path ends with, relative to the folder; a name may lack its suffix."""
        if not parts:
            return []
        same = self._by_file_name.get(parts[-1]) or self._by_file_name.get(_spelling(parts[-1:])[0])
        return same or ([] if is_image_name(parts[-1]) else self._by_stem.get(parts[-1], []))

    def _relative(self, path: Path) -> Parts:
        return path.relative_to(self._folder).parts if path.is_relative_to(self._folder) else path.parts

    @cached_property
    def _images(self) -> list[Parts]:
        tree = self._tree or scan(self._folder).root
        return [self._relative(path) for path in tree.all_images()]

    @cached_property
    def _by_spelling(self) -> dict[Parts, Parts]:
        """The images by their paths in one spelling, where that is unique."""
        by_spelling: dict[Parts, list[Parts]] = {}
        for parts in self._images:
            by_spelling.setdefault(_spelling(parts), []).append(parts)
        return {key: same[0] for key, same in by_spelling.items() if len(same) == 1}

    @cached_property
    def _by_file_name(self) -> dict[str, list[Parts]]:
        by_name: dict[str, list[Parts]] = {}
        for parts in self._images:
            by_name.setdefault(parts[-1], []).append(parts)
            if (spelled := _spelling(parts[-1:])[0]) != parts[-1]:
                by_name.setdefault(spelled, []).append(parts)
        return by_name

    @cached_property
    def _by_stem(self) -> dict[str, list[Parts]]:
        by_stem: dict[str, list[Parts]] = {}
        for parts in self._images:
            by_stem.setdefault(PurePosixPath(parts[-1]).stem, []).append(parts)
        return by_stem


def leads_out(text: str) -> bool:
    """Whether a path is absolute, on a drive, of another machine, a URL, or has a ``..``."""
    name = text.strip().replace("\\", "/")
    return name.startswith("/") or _SCHEME.match(name) is not None or ".." in PurePosixPath(name).parts


def is_image_path(text: str) -> bool:
    """Whether a cell of a table ends with the file name of an image, after / or a Windows separator."""
    return is_image_name(text.strip().replace("\\", "/").rpartition("/")[2])


def _parts(text: str) -> Parts:
    """The folders and the name of a path; () for a text that is no path."""
    name = text.strip().replace("\\", "/")
    if not name or "\0" in name or len(name) > _MAX_CHARACTERS:
        return ()
    parts = tuple(part for part in PurePosixPath(name).parts if part not in ("/", "//", "."))
    return parts if parts and parts[-1] != ".." else ()


def _below(parts: Parts) -> Parts:
    """The parts after the last ``..`` of a path."""
    return parts[len(parts) - parts[::-1].index("..") :] if ".." in parts else parts


def _folder(text: str) -> str:
    """The folder of a path as the cell spells it, with the separator; "" for a name alone."""
    return "".join(text.strip().replace("\\", "/").rpartition("/")[:2])


def _spelling(parts: Parts) -> Parts:
    """A path as file systems that fold upper and lower case, or decompose letters, compare it."""
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)


def _split_of_parts(folders: Parts) -> str | None:
    return next((split for folder in folders if (split := split_of(folder))), None)


def _allowed_splits(split: str | None, is_by_row: bool, splits: _Splits) -> _Splits:
    """The splits whose folders may hold the files of rows of `split`; `splits` are those of all images there are."""
    # A table without a word on splits may lie above train/ and test/: its rows are those of train.
    allowed: _Splits = {split or "train", None}
    if (split is None and not allowed & splits) or (is_by_row and split not in splits):
        return splits | {None}
    return allowed


def _keeps_split(prefix: Parts, base: Parts, allowed: _Splits) -> bool:
    """Whether a file in `base` may stand for a path that begins with `prefix`: not in the folder of another split."""
    wanted, found = _split_of_parts(prefix), _split_of_parts(base)
    return found is None or (found == wanted if wanted else found in allowed)


def _rule_note(prefix: Parts, base: Parts) -> str:
    below = f"below {printable('/'.join(base))}/" if base else "beside the table"
    without = f", without their first folders {'/'.join(prefix)}/" if prefix else ""
    return f"paths are those of files {below}{without}"


def _name_problem(named: Sequence[Parts], candidates: Sequence[Parts]) -> str:
    if len(candidates) > 1:
        return f"{len(candidates)} files have that name: {abbreviate_list(['/'.join(parts) for parts in candidates])}"
    if named:
        return f"no such file, but one in the folder of another split, {'/'.join(named[0])}"
    return _MISSING


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # the name is too long
        return False
