"""Zip and tar archives of any other format, unpacked to a temporary folder while they are read."""

import errno
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from timebox.data.arrays.decoded_cache import FileFingerprint
from timebox.data.arrays.npy import ZIP_ERRORS
from timebox.data.dataset import LoadedData
from timebox.data.folders.names import is_system_name
from timebox.data.folders.tree import is_image_name
from timebox.data.formats.detect import Format, detect
from timebox.data.images.decode import decode_image, read_header
from timebox.data.part import PartRead, part_order
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.data.reading.options import DEFAULT_MAX_SIDE, ProgressNotifier, ReadOptions
from timebox.data.reading.tar import TAR_ERRORS, check_member_path, first_member, read_tar
from timebox.data.reading.text import abbreviate_list, short_name
from timebox.data.reading.threads import seconds_per_image
from timebox.data.reading.time_limit import Stage
from timebox.data.tables.sources import is_table
from timebox.errors import DataError, TimeboxError
from timebox.files import open_regular, temporary_directory
from timebox.formatting import plural

# Of other programs; they are zip archives too.
_OTHER_ZIPS = frozenset({".xlsx", ".ods", ".docx", ".odt", ".pptx", ".pt", ".pth", ".ckpt"})
_MIN_FREE_BYTES = 256 << 20  # left free on the disk
_UNPACKING_SHARE = 0.4  # of the time left for reading, where a part of the images may be read

Member = tuple[PurePosixPath, IO[bytes] | None]  # path, and content; None for a link


class Archive:
    """Reader of archives that hold one of ``formats``."""

    name = "a zip or tar of any of these"

    def __init__(self, formats: Sequence[Format]) -> None:
        self._formats = formats

    def matches(self, path: Path) -> bool:
        return (
            path.is_file()
            and path.suffix.lower() not in _OTHER_ZIPS
            and (zipfile.is_zipfile(path) or first_member(path) is not None)
        )

    def read(self, path: Path, options: ReadOptions) -> LoadedData:
        with temporary_directory("timebox-") as folder:
            root = Path(folder) / "archive"  # messages replace this path by that of the archive
            root.mkdir()
            links, part = _unpack(path, root, options)
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
                fingerprint = FileFingerprint.of(path, path.name)
                loaded = format.read(inner, replace(options, archive=fingerprint, archive_links=frozenset(links)))
            except DataError as error:
                raise DataError(str(error).replace(str(root), str(path))) from error
        left = [f"{plural(len(links), 'link')} in the archive left out"] if links else []
        notes = [*left, *(note.replace(str(root), str(path)) for note in loaded.notes)]
        kind = "zip" if zipfile.is_zipfile(path) else "tar"
        if part:
            part = replace(part, images=loaded.part.images if loaded.part else part.images)
        return replace(
            loaded,
            name=short_name(path),
            format=f"{kind} of a {loaded.format}",
            notes=tuple(notes),
            part=part or loaded.part,
        )


def _unpack(path: Path, root: Path, options: ReadOptions) -> tuple[list[Path], PartRead | None]:
    """Unpack all files that are not hidden to `root`, or a part of the images of a zip archive where a part may be
    read. Returns the links, which are left out, as the paths they would have, and the part."""
    is_zip = zipfile.is_zipfile(path)
    errors = ZIP_ERRORS if is_zip else TAR_ERRORS
    try:
        return (_unpack_zip if is_zip else _unpack_tar)(path, root, options)
    except DataError as error:
        raise DataError(str(error).replace(str(root), str(path))) from error
    except TimeboxError:
        raise
    except errors as error:
        raise DataError(f"{path}: the archive is truncated, damaged or locked ({error})") from error


def _unpack_tar(path: Path, root: Path, options: ReadOptions) -> tuple[list[Path], None]:
    notify, num_bytes = ProgressNotifier(options.notify), path.stat().st_size
    unpacked: list[Path] = []
    links: list[Path] = []
    options.time.whole_reason = "a tar archive is read from its beginning to its end"

    def describe(position: int) -> str:
        return f"unpacked {len(unpacked):,} files, {min(position / num_bytes, 1):.0%} of the archive,"

    stage = Stage(options.time, describe, num_bytes, lambda: len(unpacked) * _reading_seconds(unpacked))
    with open_regular(path) as file:
        for member, content in _tar_members(file, path):
            if content is None:
                links.append(root / member)
                continue
            unpacked.append(_write(root / member, content, options))
            notify(f"unpacked {len(unpacked):,} files")
            stage.advance(file.tell())
    return links, None


def _unpack_zip(path: Path, root: Path, options: ReadOptions) -> tuple[list[Path], PartRead | None]:
    notify, time, recorded = ProgressNotifier(options.notify), options.time, options.part
    with open_regular(path) as file, zipfile.ZipFile(file) as archive:
        members, linking = _zip_members(archive, path)
        links = [root / check_member_path(member.filename, path) for member in linking]
        has_table = any(is_table(Path(_name(member))) for member in members if not is_image_name(_name(member)))
        if time.allow_partial and has_table:
            time.whole_reason = "a zip archive with a table is unpacked as a whole"
        rest, images = _images_apart(members)
        num_images, may_end = len(images), time.allow_partial and not has_table
        if recorded and recorded.unpacked:
            images = images[: recorded.unpacked]
        members = [*rest, *images]
        unpacked: list[Path] = []
        stage = Stage(
            time,
            lambda done: f"unpacked {done:,} of {len(members):,} files",
            len(members),
            lambda: len(members) * _reading_seconds(unpacked),
            _UNPACKING_SHARE if may_end else None,
        )
        for member in members:
            unpacked.append(_write(root / check_member_path(member.filename, path), archive.open(member), options))
            notify(f"unpacked {len(unpacked):,} files")
            if not stage.advance(len(unpacked)):
                break
    num_unpacked = len(unpacked) - len(rest)
    if num_unpacked < len(set(map(_folder, images))) or len(unpacked) < len(rest):
        time.whole_reason = "there is no time for an image of each folder"
        raise time.refuse(time.used * (len(members) / max(len(unpacked), 1) - 1))
    return links, None if num_unpacked == num_images else PartRead(num_unpacked, num_images, num_unpacked)


def _images_apart(members: Sequence[zipfile.ZipInfo]) -> tuple[list[zipfile.ZipInfo], list[zipfile.ZipInfo]]:
    """(members that are no images, images in an order whose first ones are a part of each folder)."""
    images = [member for member in members if is_image_name(_name(member))]
    rest = [member for member in members if not is_image_name(_name(member))]
    return rest, [images[index] for index in part_order([_folder(member) for member in images]).tolist()]


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[2]


def _folder(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[0]


def _reading_seconds(files: Sequence[Path]) -> float:
    """Seconds of reading a file after it was unpacked, measured on some."""

    def read(file: Path) -> None:
        read_header(file)
        decode_image(file, (DEFAULT_MAX_SIDE, DEFAULT_MAX_SIDE))

    return seconds_per_image(read, files)


def _write(target: Path, content: IO[bytes], options: ReadOptions) -> Path:
    """Write an unpacked file; returns its path. Raises DataError where its name cannot be one of a file."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        opened = target.open("wb")
    except OSError as error:
        clash = error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
        reason = "the archive uses that name for a folder and for a file" if clash else error.strerror
        raise DataError(f"{str(target)!r} cannot be unpacked: {reason}") from error
    with content, opened as file:
        while block := content.read(1 << 20):
            options.time.check()
            file.write(block)
    return target


def _zip_members(archive: zipfile.ZipFile, path: Path) -> tuple[list[zipfile.ZipInfo], list[zipfile.ZipInfo]]:
    """(the files, the links) that are not hidden. Raises DataError where they would take too much room."""
    members = [member for member in archive.infolist() if not _is_folder(member)]
    num_bytes = sum(member.file_size for member in members)
    check_unpacked(num_bytes, path.stat().st_size, str(path))
    _check_disk_space(num_bytes, path)
    for member in members:
        if not check_member_path(member.filename, path).parts:
            raise DataError(_without_name(path, member.filename))
    shown = [member for member in members if not _is_hidden(member.filename)]
    return [member for member in shown if not _is_link(member)], [member for member in shown if _is_link(member)]


def _without_name(path: Path, name: str) -> str:
    return f"{path}: holds a file without a name ({name!r}); pack it again"


def _is_folder(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a folder. Programs for Windows may write its name with a backslash."""
    return member.filename.endswith("/") or (member.filename.endswith("\\") and not member.file_size)


def _is_link(member: zipfile.ZipInfo) -> bool:
    """Whether a member of a zip archive is a symbolic link, by the mode of Unix that it carries."""
    return stat.S_ISLNK(member.external_attr >> 16)


def _is_hidden(name: str) -> bool:
    """Whether a member, or a folder it lies in, is a system file; ``..`` is refused later."""
    return any(is_system_name(part) for part in re.split(r"[/\\]", name) if part not in (".", ".."))


def _tar_members(file: BinaryIO, path: Path) -> Iterator[Member]:
    """The members of a tar stream; the content of each must be read before the next is requested."""
    with read_tar(file, path) as archive:
        for member in archive:
            member_path = check_member_path(member.name, path)
            if not member_path.parts and not member.isdir():
                raise DataError(_without_name(path, member.name))
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
