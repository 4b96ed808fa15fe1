"""Reads tar files, plain or compressed, with limits on decompression and on member paths."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO

from timebox.data.reading.decompression_limits import check_unpacked
from timebox.errors import DataError
from timebox.files import open_regular

# Errors that reading a damaged tar file raises. A chain of nested headers raises RecursionError.
TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError, MemoryError)


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file, plain or compressed, as a stream. Raises DataError when it exceeds the decompression limits."""
    with open_regular(path) as file, read_tar(file, path) as archive:
        yield archive


@contextmanager
def read_tar(file: BinaryIO, path: Path) -> Iterator[tarfile.TarFile]:
    """Open the tar file at `path`, which is open as `file`, as :func:`open_tar` does."""
    limited = _LimitedReader(_decompress(file), path)
    with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]  # needs only read
        yield archive


def first_member(path: Path) -> tarfile.TarInfo | None:
    """The first member of a tar file, plain or compressed; None for any other file."""
    try:
        with open_tar(path) as archive:
            return archive.next()
    except TAR_ERRORS:  # DataError is a ValueError
        return None


def check_member_path(name: str, path: Path) -> PurePosixPath:
    """The relative path of an archive member. Raises DataError where it leads out of the folder it is unpacked to."""
    member = PurePosixPath(name.replace("\\", "/"))  # some programs write Windows separators
    if member.is_absolute() or ".." in member.parts or PureWindowsPath(name).drive:
        raise DataError(f"{path}: holds {name!r}, which lies outside the archive; refused")
    return member


class _LimitedReader:
    """The bytes of a stream, decompressed from `path`. Raises DataError where they exceed the limits."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._num_bytes, self._packed_bytes = 0, path.stat().st_size

    def read(self, size: int) -> bytes:
        block = self._stream.read(size)
        self._num_bytes += len(block)
        check_unpacked(self._num_bytes, self._packed_bytes, str(self._path))
        return block


def _decompress(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(file)
    return file
