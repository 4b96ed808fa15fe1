"""Safe reader of .npz archives: arrays by name, without pickle."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.npy import read_npy
from timebox.data.reading.decompression_limits import check_unpacked
from timebox.errors import DataError


class ArrayArchive:
    """The arrays of an open .npz archive. Names are in lower case; each array is read on request.

    Raises DataError where two names differ only in case, or the archive exceeds the decompression limits.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name.lower() in self._members:
                raise DataError(f"{path}: holds {name} twice")
            self._members[name.lower()] = member
        packed_bytes = path.stat().st_size
        check_unpacked(sum(member.file_size for member in self._members.values()), packed_bytes, str(path))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def original_name(self, name: str) -> str:
        """A name with the case it has in the archive."""
        return self._members[name].filename.removesuffix(".npy")

    def names(self) -> list[str]:
        """All names with the case they have in the archive."""
        return [self.original_name(name) for name in self._members]

    def read(self, name: str) -> NDArray[np.generic]:
        """Read one array of numbers or strings. Raises DataError for any other content."""
        member = self._members[name]
        try:
            with self._archive.open(member) as stream:
                return read_npy(stream, member.file_size)
        except (ValueError, MemoryError) as error:
            reason = str(error) or "it does not fit into memory"
            raise DataError(f"{self.path}: {self.original_name(name)} cannot be read: {reason}") from error
