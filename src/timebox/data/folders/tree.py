"""Lists a source once: every image in and below a folder, and what is left out of the list."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from timebox.data.folders.names import is_system_name
from timebox.data.images.decode import IMAGE_SUFFIXES
from timebox.data.images.signatures import is_encoded_image
from timebox.data.left_out import LeftOut
from timebox.data.reading.text import relative_name
from timebox.errors import DataError
from timebox.files import open_regular

_MAX_DEPTH, _MAX_LINKED_FOLDERS = 100, 10_000
_SIGNATURE_BYTES = 64
_ENTRIES_PER_CHECK = 256

_Identity = tuple[int, int]  # device and inode of a folder


@dataclass(frozen=True, slots=True, eq=False)
class ImageFolder:
    """A folder with all that lies below it; system files and folders are left out.

    Attributes:
        folders, images, others: its folders, its images, and its other files, each sorted by name.
        num_images: number of images in it and below.
    """

    path: Path
    folders: tuple["ImageFolder", ...]
    images: tuple[Path, ...]
    others: tuple[Path, ...]
    num_images: int

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def holders(self) -> list["ImageFolder"]:
        """The folders in it that hold images, directly or below."""
        return [folder for folder in self.folders if folder.num_images]

    def walk(self) -> Iterator["ImageFolder"]:
        """It, and all folders below it."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def all_images(self) -> Iterator[Path]:
        """The images in it and below, sorted by folder, then by name."""
        for folder in self.walk():
            yield from folder.images


@dataclass(frozen=True, eq=False)
class Scan:
    """The content of a source."""

    root: ImageFolder
    left_out: tuple[LeftOut, ...]


@dataclass(eq=False)
class _Skipped:
    """Paths that are not in the list; and what is called every few files."""

    check_time: Callable[[], None]
    system: list[Path] = field(default_factory=list)
    loops: list[Path] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    num_linked: int = 0


def scan(path: Path, check_time: Callable[[], None] = lambda: None) -> Scan:
    """List a folder and all folders below it.

    A file is an image by its suffix, or where the suffix is not an image's by its first bytes. Links are followed,
    except to a folder that they lie in. Raises OSError for a folder that cannot be listed, DataError for one too deep,
    and whatever `check_time` raises, which is called every few files.
    """
    skipped = _Skipped(check_time)
    above = tuple(_identity(parent) for parent in path.resolve().parents)
    root = _list(path, above, 0, skipped)

    def names(paths: Iterable[Path]) -> list[str]:
        return [relative_name(each, path) for each in paths]

    left_out = (
        LeftOut.of("hidden or system item", "", names(skipped.system)),
        LeftOut.of("link", "to a folder above itself", names(skipped.loops)),
        LeftOut.of("link", "to nothing", names(skipped.broken)),
    )
    return Scan(root, tuple(each for each in left_out if each))


def image_paths(folder: Path) -> list[Path]:
    """The images in a folder and all folders below it, sorted by folder, then by name; see :func:`scan`."""
    return list(scan(folder).root.all_images())


def is_image_name(name: str) -> bool:
    """Whether a file name has the suffix of an image."""
    return not is_system_name(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  # faster


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _list(path: Path, above: tuple[_Identity, ...], depth: int, skipped: _Skipped) -> ImageFolder:
    """`above` identifies the folders that `path` lies in, as they were reached; `depth` counts them from the source."""
    above = (*above, _identity(path))
    if depth > _MAX_DEPTH:
        raise DataError(f"{path}: folders are nested more than {_MAX_DEPTH} deep")
    folders: list[ImageFolder] = []
    images: list[Path] = []
    others: list[Path] = []
    with os.scandir(path) as listed:
        entries = sorted(_checked(listed, skipped.check_time), key=lambda entry: entry.name)
    for entry in _checked(entries, skipped.check_time):
        child = Path(entry.path)
        if is_system_name(entry.name):
            if _is_folder(entry) or Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                skipped.system.append(child)
        elif _is_folder(entry):
            if not entry.is_symlink() or _may_follow(child, above, skipped):
                folders.append(_list(child, above, depth + 1, skipped))
        elif is_image_name(entry.name):
            images.append(child)
        elif entry.is_symlink() and not child.exists():
            skipped.broken.append(child)
        else:
            (images if _starts_like_an_image(child) else others).append(child)
    num_images = len(images) + sum(folder.num_images for folder in folders)
    return ImageFolder(path, tuple(folders), tuple(images), tuple(others), num_images)


def _checked(entries: Iterable["os.DirEntry[str]"], check_time: Callable[[], None]) -> Iterator["os.DirEntry[str]"]:
    """The entries, with a call of `check_time` before each few of them."""
    for number, entry in enumerate(entries):
        if number % _ENTRIES_PER_CHECK == 0:
            check_time()
        yield entry


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_follow(link: Path, above: tuple[_Identity, ...], skipped: _Skipped) -> bool:
    if _identity(link) in above:
        skipped.loops.append(link)
        return False
    skipped.num_linked += 1
    if skipped.num_linked > _MAX_LINKED_FOLDERS:
        raise DataError(f"{link}: more than {_MAX_LINKED_FOLDERS:,} links to folders; give a source with fewer")
    return True


def _starts_like_an_image(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with open_regular(path) as file:
            return is_encoded_image(file.read(_SIGNATURE_BYTES))
    except OSError:
        return False
