"""Opens and parses files that are not trusted, locks files, and writes files whole or not at all.

Directories whose files must never lead elsewhere are opened as a :class:`~timebox.files.folders.Folder`. The modules
here know nothing of runs or data.
"""

import codecs
import errno
import json
import math
import os
import reprlib
import shlex
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, NoReturn

from timebox.errors import OutputError, TimeboxError, UsageError, option_text
from timebox.files.folders import LINK, NOT_FOLLOWED, Folder, kind_of
from timebox.machine import memory_shortage

try:
    import fcntl
except ImportError:  # on Windows, where an open file is locked anyway
    fcntl = None  # type: ignore[assignment]

# Errors of flock on file systems that have no locks, such as some network and FUSE file systems.
NO_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK, errno.EPERM, errno.EINVAL)

_MAX_DIGITS = 308  # of an integer that a float can hold, whatever its digits


def open_regular(path: str | Path, *, follow: bool = True) -> BinaryIO:
    """Open a regular file for reading. Raises OSError for any other, also for a path that no file can have.

    A pipe would block until another process writes to it, and opening a device can have effects of its own.

    Args:
        follow: False where the file must not be a symbolic link: one in a run directory may lead anywhere.
    """
    try:
        mode = Path(path).stat().st_mode if follow else Path(path).lstat().st_mode
        _check_regular(mode)
        # Another process may have replaced the file by a pipe since stat: O_NONBLOCK opens a pipe without waiting.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    except ValueError as error:  # versions of Python differ in their words
        raise OSError("embedded null byte") from error
    file = os.fdopen(descriptor, "rb")
    try:
        _check_regular(os.fstat(descriptor).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _check_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = kind_of(mode)
        raise OSError(NOT_FOLLOWED if kind == LINK else f"a {kind}, not a file")


def read_regular(path: str | Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """The content of a regular file. Raises OSError for any other kind of file, above ``max_bytes``, and where it does
    not fit into memory."""
    with open_regular(path, follow=follow) as file:
        return read_open(file, max_bytes)


def read_open(file: BinaryIO, max_bytes: int) -> bytes:
    """The content of a file that is open. Raises OSError above ``max_bytes``, and where it does not fit into memory."""
    size = _size_within(file, max_bytes)
    if reason := memory_shortage(size, "its content"):
        raise OSError(f"it {reason}")
    return file.read(size)  # read(max_bytes) would allocate max_bytes for the smallest file


def _size_within(file: BinaryIO, max_bytes: int) -> int:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise OSError(f"larger than the {max_bytes:,} bytes such a file may have")
    return size


def read_lines(path: Path, max_line_bytes: int, max_bytes: int | None = None) -> Iterator[bytes]:
    """The lines of a regular file, no link, each with its line break; the last may be unfinished.

    Raises OSError for any other kind of file, for one above ``max_bytes``, and for a line above ``max_line_bytes``.
    """
    with open_regular(path, follow=False) as file:
        if max_bytes is not None:
            _size_within(file, max_bytes)
        while line := file.readline(max_line_bytes + 1):
            if len(line) > max_line_bytes:
                raise OSError(f"it has a line of over {max_line_bytes:,} bytes")
            yield line


def check_own(path: Path, status: os.stat_result) -> None:
    """Raise OutputError unless a file or folder of a cache belongs to this user, and others may not write to it."""
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise OutputError(f"{str(path)!r} belongs to another user (number {status.st_uid})")
    if hasattr(os, "geteuid") and status.st_mode & stat.S_IWOTH:
        raise OutputError(f"{str(path)!r} can be written to by every user: chmod o-w {shlex.quote(str(path))}")


def check_readable(content: bytes, max_bytes: int, what: str) -> bytes:
    """``content`` itself, of ``what``, which is read with a limit of ``max_bytes``. Raises OutputError above it."""
    if len(content) > max_bytes:
        raise OutputError(f"{what} of {len(content):,} bytes could not be read again: at most {max_bytes:,} are read")
    return content


def parse_json_object(blob: bytes) -> dict[str, object]:
    """The JSON object in ``blob``. Raises ValueError for anything but strict JSON: a key twice, NaN or Infinity."""
    if not blob.strip():
        raise ValueError("it is empty")
    if blob.startswith(codecs.BOM_UTF8):
        raise ValueError("it begins with a byte order mark: save it as UTF-8 without one")
    if b"\0" in blob:  # as in a file with holes, which may be far larger than it looks
        raise ValueError("it holds zero bytes")
    try:
        value = json.loads(
            blob.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_number,
            parse_float=_finite_float,
            parse_int=_short_int,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: byte {error.start:,} is 0x{blob[error.start]:02x}") from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except MemoryError as error:
        raise ValueError(f"the values in its {len(blob):,} bytes do not fit into memory") from error
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _unique_keys(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"it has the key {reprlib.repr(key)} twice")
        values[key] = value
    return values


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{reprlib.repr(text).strip(chr(39))} is no number of JSON, or too large for one")


def _short_int(text: str) -> int:
    return int(text) if len(text) <= _MAX_DIGITS else _refuse_number(text)


def _finite_float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


@contextmanager
def written(what: str) -> Iterator[None]:
    """Turn an OSError inside into an OutputError whose message names ``what``, the file or directory to be written."""
    try:
        yield
    except TimeboxError:
        raise
    except OSError as error:
        raise OutputError(f"{what} cannot be written to: {error.strerror or error}") from error


@contextmanager
def temporary_directory(prefix: str) -> Iterator[str]:
    """A directory that is removed at the end. Raises OutputError where no temporary directory can be written to."""
    with _temporary():
        folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
    with folder as path:
        yield path


def temporary_file() -> IO[bytes]:
    """A file that is gone once it is closed. Raises OutputError where no temporary directory can be written to."""
    with _temporary():
        return tempfile.TemporaryFile()


@contextmanager
def _temporary() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"no directory for temporary files can be written to ({error.strerror or error}); "
            "set TMPDIR to one that can"
        ) from error


def check_free(path: Path, what: str) -> None:
    """Raise UsageError unless ``path`` is new or empty, for the directory of a new ``what``: "benchmark", "search"."""
    with written(f"{what} {str(path)!r}"):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"out {str(path)!r} must be a directory that is new or empty; to go on with a {what}, give "
                f"{option_text('resume', str(path))} alone"
            )


def lock(file: int, *, wait: bool = False) -> None:
    """Lock an open file, given by its descriptor, until it is closed.

    Where another process has it locked, wait for that process, or raise BlockingIOError. On a file system without locks
    nothing is locked: a process alone works there too. Processes that wait for each other do not, so with ``wait`` the
    OSError of the file system is raised.
    """
    if fcntl:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if wait or error.errno not in NO_LOCKS:
                raise


def is_locked(path: Path) -> bool | None:
    """Whether another process has locked a file; None where the file system has no locks, or it cannot be opened.

    The file is locked for a moment to find out, so that a process which begins just then finds it locked.
    """
    if not fcntl:
        return None
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by renaming a temporary one. Raises OSError; the file is as it was before then.

    Where ``path`` is a link, the file takes its place; what it leads to stays as it is.
    """
    with Folder(path.parent) as folder:
        folder.write_whole(path.name, content)
