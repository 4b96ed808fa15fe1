"""Directories that are held open: files are reached by name through the handle, and never through a symbolic link.

A name that is a link fails where a path would be followed, and renaming the directory changes nothing for its holder.
Where the system has no such handles, as on Windows, paths take their place.
"""

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self

CHUNK_BYTES = 1 << 22
FILE, DIRECTORY, LINK = "file", "directory", "symbolic link"
NOT_FOLLOWED = f"it is a {LINK}, which is not followed here; put the file itself in its place"
_NO_FOLLOW, _NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)
_BINARY, _DIRECTORY = getattr(os, "O_BINARY", 0), getattr(os, "O_DIRECTORY", 0)
_HAS_HANDLES = os.listdir in os.supports_fd and os.supports_dir_fd >= {os.open, os.stat, os.unlink, os.mkdir, os.rmdir}
# Of a temporary file, so that its own name stays within the 255 bytes that a name may have.
_MAX_STEM = 50
_TEMPORARY = re.compile(r"\.(.+?)(?:\.[0-9a-f]{16})?\.tmp", re.DOTALL)  # without a token: of earlier versions


class Folder:
    """A directory that is held open; a context manager that closes it.

    Args:
        path: the directory, itself or by a link.
        follow: whether ``path`` may be a link.
    Attributes:
        handle: descriptor of the directory; None where the system has none, -1 once it is closed.
    Raises:
        OSError: where there is no such directory.
    """

    def __init__(self, path: Path, *, follow: bool = True, _parent: "Folder | None" = None) -> None:
        self.path = path
        place, where = (path, {}) if _parent is None else (_parent._place(path.name), _parent._where)
        if not follow and _kind_at(place, where) == LINK:
            raise OSError(NOT_FOLLOWED)
        self.handle = None
        if _HAS_HANDLES:
            self.handle = os.open(place, os.O_RDONLY | _DIRECTORY | (0 if follow else _NO_FOLLOW), **where)
        elif not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *rest: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle, which also ends a lock on it. May be called twice; every other use fails then."""
        handle, self.handle = self.handle, -1 if _HAS_HANDLES else None
        if handle is not None and handle >= 0:
            os.close(handle)

    def names(self) -> list[str]:
        """The names in the directory, sorted."""
        return sorted(os.listdir(self.path if self.handle is None else self.handle))  # noqa: PTH208  # takes a handle

    def kind(self, name: str) -> str:
        """``file``, ``directory``, ``symbolic link``, ``named pipe``, …; empty for a name that is not there."""
        return _kind_at(self._place(name), self._where)

    def status(self) -> os.stat_result:
        """Owner, mode and times of the directory."""
        return os.stat(self.path if self.handle is None else self.handle)  # noqa: PTH116  # takes a handle

    def folder(self, name: str, *, create: bool = False) -> "Folder":
        """A directory in this one. Raises OSError where it is something else, or a link to a directory."""
        if create:
            with suppress(FileExistsError):
                os.mkdir(self._place(name), **self._where)  # noqa: PTH102  # relative to the handle
        return Folder(self.path / name, follow=False, _parent=self)

    def open_own(self, name: str) -> int:
        """Open a file to be written in place, created where it is missing; its descriptor.

        A file that has other names too (hard links) is replaced by a copy first: they keep their content.
        """
        descriptor = self.open_file(name, os.O_RDWR | os.O_CREAT)
        if os.fstat(descriptor).st_nlink > 1:
            with os.fdopen(descriptor, "rb") as file, self._replacing(name) as copy:
                while chunk := file.read(CHUNK_BYTES):
                    _write_all(copy, chunk)
            descriptor = self.open_file(name, os.O_RDWR)
        return descriptor

    def open_regular(self, name: str) -> BinaryIO:
        """Open a file for reading. Raises OSError for anything but a regular file."""
        return os.fdopen(self.open_file(name, os.O_RDONLY), "rb")

    def write_whole(self, name: str, content: bytes) -> None:
        """Write a file by renaming a temporary one. Raises OSError; the file is as it was before then."""
        with self._replacing(name) as descriptor:
            _write_all(descriptor, content)

    def write_unsynced(self, name: str, content: bytes) -> None:
        """Write a file as :meth:`write_whole` does, not waiting for the disk: a power cut may leave a part of it."""
        with self._replacing(name, sync=False) as descriptor:
            _write_all(descriptor, content)

    def write_durably(self, name: str, content: bytes) -> None:
        """Write a file as :meth:`write_whole` does; once this returns, it also survives a power cut."""
        self.write_whole(name, content)
        self.sync()

    def remove(self, name: str) -> None:
        """Remove a file, if it is there; a link is removed itself."""
        with suppress(FileNotFoundError):
            os.unlink(self._place(name), **self._where)  # relative to the handle

    def remove_folder(self, name: str) -> None:
        """Remove an empty directory. Raises OSError where it is not empty."""
        os.rmdir(self._place(name), **self._where)  # relative to the handle

    def sync(self) -> None:
        """Write renames in the directory to the disk, where directories have handles."""
        if self.handle is not None:
            os.fsync(self.handle)

    def is_at(self, path: Path) -> bool:
        """Whether this directory is the one at ``path`` today."""
        try:
            return os.path.samestat(self.status(), path.stat())
        except OSError:
            return False

    def open_file(self, name: str, flags: int) -> int:
        """Open a regular file; its descriptor. Raises OSError for anything else."""
        self._check_file(self.kind(name))
        # The name may have become a link or a pipe since: neither is followed or waited for.
        flags |= _NO_FOLLOW | _NO_WAIT | _BINARY
        try:
            descriptor = os.open(self._place(name), flags, 0o666, **self._where)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EMLINK):
                raise OSError(NOT_FOLLOWED) from error
            raise
        try:
            self._check_file(kind_of(os.fstat(descriptor).st_mode))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    @staticmethod
    def _check_file(kind: str) -> None:
        if kind not in ("", FILE):
            raise OSError(not_a_file(kind))

    @contextmanager
    def _replacing(self, name: str, sync: bool = True) -> Iterator[int]:
        """The descriptor of a temporary file that takes the name at the end, and is removed after an error."""
        temporary = f".{name[:_MAX_STEM]}.{secrets.token_hex(8)}.tmp"
        place, where = self._place(temporary), self._where
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY
        descriptor = os.open(place, flags, 0o666, **where)
        try:
            try:
                yield descriptor
                if sync:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            handles = {f"{end}_dir_fd": handle for end in ("src", "dst") for handle in where.values()}
            os.replace(place, self._place(name), **handles)  # noqa: PTH105  # relative to the handle
        except BaseException:
            with suppress(OSError):
                self.remove(temporary)
            raise

    def _place(self, name: str) -> str:
        """A name in the directory as the functions of ``os`` take it, together with ``_where``."""
        if os.path.basename(name) != name or name in ("", os.curdir, os.pardir):  # noqa: PTH119  # of a mere name
            raise OSError(f"{name!r} is not the name of a file")
        return name if self.handle is not None else str(self.path / name)

    @property
    def _where(self) -> dict[str, int]:
        return {} if self.handle is None else {"dir_fd": self.handle}


def target_of_temporary(name: str) -> str | None:
    """The name of the file that a temporary file was to become; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found[1] if found else None


def kind_of(mode: int) -> str:
    """The kind of file that a mode of ``stat`` stands for, in a word or two."""
    kinds = {
        stat.S_IFREG: FILE,
        stat.S_IFDIR: DIRECTORY,
        stat.S_IFLNK: LINK,
        stat.S_IFIFO: "named pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def not_a_file(kind: str) -> str:
    """Why an entry of a :meth:`Folder.kind` other than ``file`` is refused in place of one."""
    return NOT_FOLLOWED if kind == LINK else f"it is a {kind}, not a file"


def _kind_at(place: str | Path, where: dict[str, int]) -> str:
    try:
        return kind_of(os.stat(place, follow_symlinks=False, **where).st_mode)  # noqa: PTH116  # relative to a handle
    except FileNotFoundError:
        return ""


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    for start in range(0, len(view), CHUNK_BYTES):
        chunk = view[start : start + CHUNK_BYTES]
        while chunk:
            chunk = chunk[os.write(descriptor, chunk) :]
