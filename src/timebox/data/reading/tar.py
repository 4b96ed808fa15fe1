"""Reads tar files, plain or compressed, with limits on decompression and on member paths."""

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

# Errors that reading a damaged tar file raises. A chain of nested headers raises RecursionError.
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
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar file, plain or compressed, as a stream. Raises DataError when it exceeds the decompression limits."""
    with open_regular(path) as file:
        limited = LimitedReader(_decompressed(file), path.stat().st_size, str(path))
        with tarfile.open(fileobj=limited, mode="r|") as archive:  # type: ignore[call-overload]  # needs only read
            yield archive


def check_member_path(name: str, path: Path) -> PurePosixPath:
    """The relative path of an archive member. Raises DataError where it leads out of the folder it is unpacked to."""
    member = PurePosixPath(name.replace("\\", "/"))  # some programs write Windows separators
    if member.is_absolute() or ".." in member.parts or PureWindowsPath(name).drive:
        raise DataError(f"{path}: holds {name!r}, which lies outside the archive; refused")
    return member


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(file)
    return file
