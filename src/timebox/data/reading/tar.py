"""Tar files, plain or compressed, as a stream of members that nobody is harmed by."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from timebox.data.reading.decompression_limits import LimitedReader
from timebox.errors import DataError
from timebox.files import open_regular

# What reading a damaged one raises; headers that lead on to headers without end exhaust the stack.
TAR_ERRORS = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    RecursionError,
    MemoryError,
)


@contextmanager
def opened_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar file, plain or compressed, as a stream that stops at a decompression bomb."""
    with open_regular(path) as file:
        bounded = LimitedReader(_unpacked(file), path.stat().st_size, str(path))
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]  # asks for read alone
            yield archive


def check_place(name: str, path: Path) -> PurePosixPath:
    """The place of a member. Raises DataError where it would lie outside of where an archive is unpacked."""
    inner = PurePosixPath(name.replace("\\", "/"))  # some programs write Windows' separators
    if inner.is_absolute() or ".." in inner.parts or PureWindowsPath(name).drive:
        raise DataError(f"{path}: holds {name!r}, which lies outside the archive; refused")
    return inner


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(file)
    return file
