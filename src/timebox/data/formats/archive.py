"""A zip or tar of anything that is read as a folder or a file: unpacked for as long as it is read."""

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from timebox.data.arrays.decoded_cache import Identity
from timebox.data.dataset import LoadedData
from timebox.data.formats.base import Format, ReadOptions, Throttle
from timebox.data.formats.detect import detect
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.data.reading.listing import entries, is_hidden
from timebox.data.reading.tar import TAR_ERRORS, check_place, opened_tar
from timebox.data.reading.wording import count, short_name, some
from timebox.errors import DataError
from timebox.files import open_regular

_ZIP_ERRORS = (zipfile.BadZipFile, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RuntimeError, MemoryError)
# Unpacking must leave so many bytes of the disk to others.
_SPARE_BYTES = 256 << 20


class Archive:
    """A format that holds others.

    Args:
        formats: what may be in it.
    """

    name = "a zip or tar of any of these"

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = formats

    def matches(self, path: Path) -> bool:
        return path.is_file() and (zipfile.is_zipfile(path) or _is_tar(path))

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        with tempfile.TemporaryDirectory(prefix="timebox-") as folder:
            root = Path(folder)
            skipped = _unpack(path, root, options)
            inside = entries(root)
            alone = inside[0] if len(inside) == 1 and inside[0].is_file() else root
            found = detect(alone, self._formats)
            if found is None:
                looked_for = "; ".join(known.name for known in self._formats)
                listed = some([entry.name + ("/" if entry.is_dir() else "") for entry in inside]) or "nothing"
                raise DataError(f"{path} holds {listed}, in no supported format. Looked for: {looked_for}")
            format, place = found
            try:
                loaded = format.read(place, replace(options, origin=Identity.of(path, path.name)))
            except DataError as error:
                raise DataError(str(error).replace(folder, str(path))) from error
        notes = tuple(note.replace(folder, str(path)) for note in (*skipped, *loaded.notes))
        return replace(loaded, name=short_name(path), format=f"{_kind(path)} of a {loaded.format}", notes=notes)


def _kind(path: Path) -> str:
    return "zip" if zipfile.is_zipfile(path) else "tar"


def _is_tar(path: Path) -> bool:
    """Whether it begins as a tar file does, itself or unpacked."""
    try:
        with opened_tar(path) as archive:
            return archive.next() is not None
    except (*TAR_ERRORS, DataError):
        return False


def _unpack(path: Path, root: Path, options: ReadOptions) -> list[str]:
    """Write all that is not hidden below `root`; what must be told of the rest."""
    notify = Throttle(options.progress)
    errors = _ZIP_ERRORS if zipfile.is_zipfile(path) else TAR_ERRORS
    num_files, num_links = 0, 0
    try:
        for place, content in _members(path):
            if content is None:
                num_links += 1
                continue
            target = root / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            num_files += 1
            notify(f"unpacked {num_files:,} files")
    except DataError:
        raise
    except errors as error:
        raise DataError(f"{path}: the archive is truncated, damaged or locked ({error})") from error
    return [f"{count(num_links, 'link')} in the archive left out"] if num_links else []


def _members(path: Path) -> Iterator[tuple[PurePosixPath, IO[bytes] | None]]:
    """Where each file of an archive belongs, and its content, to be read before the next; None for a link."""
    return _zip_members(path) if zipfile.is_zipfile(path) else _tar_members(path)


def _zip_members(path: Path) -> Iterator[tuple[PurePosixPath, IO[bytes] | None]]:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        num_bytes = sum(member.file_size for member in members)
        check_unpacked(num_bytes, path.stat().st_size, str(path))
        _check_room(num_bytes, path)
        for member in members:
            place = check_place(member.filename, path)
            if not any(map(is_hidden, place.parts)):
                yield place, archive.open(member)


def _tar_members(path: Path) -> Iterator[tuple[PurePosixPath, IO[bytes] | None]]:
    with opened_tar(path) as archive:
        for member in archive:
            place = check_place(member.name, path)
            if member.isdir() or any(map(is_hidden, place.parts)):
                continue
            if not member.isreg() or member.issparse():  # a sparse one may claim any length
                yield place, None
                continue
            _check_room(member.size, path)
            yield place, archive.extractfile(member)


def _check_room(num_bytes: int, path: Path) -> None:
    """Raises DataError where so many bytes more would fill the disk."""
    where = tempfile.gettempdir()
    free = shutil.disk_usage(where).free
    if num_bytes + _SPARE_BYTES > free:
        raise DataError(
            f"{path}: needs {num_bytes:,} bytes to be unpacked, and {where} has {free:,} left; set TMPDIR to a folder "
            "with more, or unpack it yourself"
        )
