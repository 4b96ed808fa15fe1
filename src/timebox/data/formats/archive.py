"""Zip and tar archives of any other format, unpacked to a temporary folder while they are read."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

from timebox.data.arrays.decoded_cache import FileFingerprint
from timebox.data.arrays.npy import ZIP_ERRORS
from timebox.data.dataset import LoadedData
from timebox.data.folders.names import is_system_name
from timebox.data.formats.detect import Format, detect
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.data.reading.options import ProgressNotifier, ReadOptions
from timebox.data.reading.tar import TAR_ERRORS, check_member_path, first_member, open_tar
from timebox.data.reading.text import abbreviate_list, pluralize, short_name
from timebox.errors import DataError
from timebox.files import open_regular, temporary_directory

_DOCUMENTS = frozenset({".xlsx", ".ods", ".docx", ".odt", ".pptx"})  # are zip archives too
_MIN_FREE_BYTES = 256 << 20  # left free on the disk

Member = tuple[PurePosixPath, IO[bytes] | None]  # path, and content; None for a link


class Archive:
    """Reader of archives that hold one of ``formats``."""

    name = "a zip or tar of any of these"

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = formats

    def matches(self, path: Path) -> bool:
        return (
            path.is_file()
            and path.suffix.lower() not in _DOCUMENTS
            and (zipfile.is_zipfile(path) or first_member(path) is not None)
        )

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        with temporary_directory("timebox-") as folder:
            root = Path(folder)
            notes = _unpack(path, root, options)
            inside = sorted(root.iterdir())
            content = inside[0] if len(inside) == 1 and inside[0].is_file() else root
            match = detect(content, self._formats)
            if match is None:
                known_formats = ", ".join(known.name for known in self._formats)
                listed = abbreviate_list([entry.name + ("/" if entry.is_dir() else "") for entry in inside])
                raise DataError(
                    f"{path} holds {listed or 'nothing'}, in no supported format. Looked for: {known_formats}"
                )
            format, inner = match
            try:
                loaded = format.read(inner, replace(options, archive=FileFingerprint.of(path, path.name)))
            except DataError as error:
                raise DataError(str(error).replace(folder, str(path))) from error
        notes = [note.replace(folder, str(path)) for note in (*notes, *loaded.notes)]
        kind = "zip" if zipfile.is_zipfile(path) else "tar"
        return replace(loaded, name=short_name(path), format=f"{kind} of a {loaded.format}", notes=tuple(notes))


def _unpack(path: Path, root: Path, options: ReadOptions) -> list[str]:
    """Unpack all files that are not hidden to `root`. Returns notes on members left out."""
    notify = ProgressNotifier(options.notify)
    is_zip = zipfile.is_zipfile(path)
    errors = ZIP_ERRORS if is_zip else TAR_ERRORS
    num_files, num_links = 0, 0
    try:
        for member, content in _zip_members(path) if is_zip else _tar_members(path):
            if content is None:
                num_links += 1
                continue
            target = root / member
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            num_files += 1
            notify(f"unpacked {num_files:,} files")
    except DataError:
        raise
    except errors as error:
        raise DataError(f"{path}: the archive is truncated, damaged or locked ({error})") from error
    return [f"{pluralize(num_links, 'link')} in the archive left out"] if num_links else []


def _zip_members(path: Path) -> Iterator[Member]:
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        num_bytes = sum(member.file_size for member in members)
        check_unpacked(num_bytes, path.stat().st_size, str(path))
        _check_disk_space(num_bytes, path)
        for member in members:
            member_path = check_member_path(member.filename, path)
            if not any(map(is_system_name, member_path.parts)):
                yield member_path, archive.open(member)


def _tar_members(path: Path) -> Iterator[Member]:
    """The members of a tar stream; the content of each must be read before the next is requested."""
    with open_tar(path) as archive:
        for member in archive:
            member_path = check_member_path(member.name, path)
            if member.isdir() or any(map(is_system_name, member_path.parts)):
                continue
            if not member.isreg() or member.issparse():  # a sparse file may declare any length
                yield member_path, None
                continue
            _check_disk_space(member.size, path)
            yield member_path, archive.extractfile(member)


def _check_disk_space(num_bytes: int, path: Path) -> None:
    """Raise DataError where the temporary directory does not have room for `num_bytes` more."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if num_bytes + _MIN_FREE_BYTES > free:
        raise DataError(
            f"{path}: needs {num_bytes:,} bytes to be unpacked, and {folder} has {free:,} left; set TMPDIR to a folder "
            "with more, or unpack it yourself"
        )
