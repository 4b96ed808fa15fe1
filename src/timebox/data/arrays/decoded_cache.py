"""Disk cache of decoded images: a second run does not decode again, and data sets may be larger than memory.

An entry is a folder with the pixels of each split, which are memory-mapped, and an index in JSON.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.memory_map import allocate_file
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.errors import OutputError
from timebox.files import read_regular, write_whole, written
from timebox.paths import expand_user, user_cache

FORMAT = 2
INDEX, INCOMPLETE_PREFIX = "index.json", ".new-"
MAX_INCOMPLETE_SECONDS = 86_400
_KEY = re.compile("[0-9a-f]{32}")
CACHE_VARIABLE = "TIMEBOX_CACHE"
_MAX_INDEX_BYTES = 1 << 30
MAX_BYTES = 64 << 30  # of all entries together; the least recently used is removed first
MIN_FREE_BYTES = 2 << 30  # left free on the disk


@dataclass(frozen=True)
class FileFingerprint:
    """Name, size in bytes, time of last change and inode of a file; a change of the content changes one of them."""

    name: str
    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, name: str) -> "FileFingerprint":
        """The fingerprint of the file at `path`, under a name relative to its source. Raises OSError."""
        status = path.stat()
        return cls(name, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns), status.st_ino)


class DecodedCache:
    """The cache in the folder `prepared` of TIMEBOX_CACHE or the user's cache, created with the first entry."""

    @cached_property
    def _folder(self) -> Path | None:
        """None where no directory is named and the user has no home."""
        root = os.environ.get(CACHE_VARIABLE) or user_cache()
        return Path(expand_user(root)) / "prepared" if root else None

    def begin_entry(self, key: str, num_bytes: int) -> "CacheWriter":
        """Begin to write an entry of `num_bytes`, after old entries were removed to make room.

        Raises OutputError, with the reason in words, where the cache cannot be written to or has no room.
        """
        if self._folder is None:
            raise OutputError(f"this user has no home directory, and {CACHE_VARIABLE} is not set")
        with written(repr(str(self._folder))):
            self._folder.mkdir(parents=True, exist_ok=True)
            if num_bytes > MAX_BYTES or shutil.disk_usage(self._folder).free < num_bytes + MIN_FREE_BYTES:
                raise OutputError(f"{str(self._folder)!r} has no room for {num_bytes / 1e6:,.0f} MB")
            _remove_old_entries(self._folder)
            folder = Path(tempfile.mkdtemp(prefix=INCOMPLETE_PREFIX, dir=self._folder))
        return CacheWriter(folder, self._folder / key)

    def find(self, key: str) -> LoadedData | None:
        """The entry of a key, or None where there is none or it is damaged."""
        if self._folder is None:
            return None
        entry = self._folder / key
        try:
            loaded = _load_entry(entry, msgspec.json.decode(read_regular(entry / INDEX, _MAX_INDEX_BYTES), type=_Index))
        except (OSError, ValueError, TypeError):
            return None
        with contextlib.suppress(OSError):  # a read-only cache
            os.utime(entry)
        return loaded


def _remove_old_entries(cache: Path) -> None:
    """Remove the least recently used entries above MAX_BYTES, and incomplete ones of killed processes.

    Files and folders that are not entries are left alone.
    """
    entries: list[tuple[float, Path, int]] = []
    for entry in cache.iterdir():
        if _KEY.fullmatch(entry.name) or entry.name.startswith(INCOMPLETE_PREFIX):
            with contextlib.suppress(OSError):  # another process may be removing it
                size = sum(file.stat().st_size for file in entry.iterdir())
                entries.append((entry.stat().st_mtime, entry, size))
    total = sum(size for _, _, size in entries)
    for used, entry, size in sorted(entries):
        is_incomplete = entry.name.startswith(INCOMPLETE_PREFIX)
        if total > MAX_BYTES or (is_incomplete and time.time() - used > MAX_INCOMPLETE_SECONDS):
            shutil.rmtree(entry, ignore_errors=True)
            total -= size


class CacheWriter:
    """Writes one cache entry: images are decoded straight into its memory-mapped files."""

    def __init__(self, folder: Path, entry: Path) -> None:
        self._folder, self._entry = folder, entry

    def allocate_images(self, split: str, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """A writable memory map for the images of a split: uint8 (N, H, W, C), N above 0.

        Raises OutputError, with the reason in words, where there is no room or the file system maps no memory.
        """
        file = _images_file(self._folder, split)
        with written(repr(str(self._folder.parent))):
            allocate_file(file, math.prod(shape))
            return np.memmap(file, np.uint8, "r+", shape=shape)

    def commit(self, loaded: LoadedData) -> None:
        """Complete the entry with the first images of each memory map. Where the disk fails, there is no entry."""
        with contextlib.suppress(OSError, UnicodeError):
            for split, dataset in loaded.splits.items():
                with _images_file(self._folder, split).open("r+b") as file:
                    file.truncate(dataset.images.nbytes)
                    os.fsync(file.fileno())  # an entry that exists after a power failure is complete
            write_whole(self._folder / INDEX, msgspec.json.encode(_index(loaded)))
            shutil.rmtree(self._entry, ignore_errors=True)  # a damaged entry
            self._folder.rename(self._entry)

    def discard(self) -> None:
        """Remove the entry unless it was committed."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images"


def cache_key(content: Sequence[FileFingerprint | bytes], settings: Sequence[object]) -> str:
    """The key of an entry: a hash of the fingerprints or digests of all images, and of all settings of the reader."""
    digest = hashlib.blake2b(repr((FORMAT, *settings)).encode(), digest_size=16)
    for part in content:
        digest.update(part if isinstance(part, bytes) else repr(asdict(part)).encode())
    return digest.hexdigest()


class _SplitIndex(msgspec.Struct):
    shape: tuple[int, int, int, int]
    labels: list[int]
    ids: tuple[str, ...]


class _Index(msgspec.Struct):
    """The content of index.json."""

    name: str
    format: str
    bad_files: tuple[tuple[str, str], ...]  # path, reason
    sizes: dict[str, int]
    modes: dict[str, int]
    notes: tuple[str, ...]
    white_16bit: int
    class_names: tuple[str, ...]
    splits: dict[str, _SplitIndex]


def _index(loaded: LoadedData) -> _Index:
    bad_files = tuple((bad.path, bad.reason) for bad in loaded.bad_files)
    splits = {
        name: _SplitIndex(split.images.shape, split.labels.tolist(), split.ids) for name, split in loaded.splits.items()
    }
    class_names = loaded.splits.train.class_names
    return _Index(
        name=loaded.name,
        format=loaded.format,
        bad_files=bad_files,
        sizes=loaded.sizes,
        modes=loaded.modes,
        notes=loaded.notes,
        white_16bit=loaded.white_16bit,
        class_names=class_names,
        splits=splits,
    )


def _load_entry(entry: Path, index: _Index) -> LoadedData:
    """The data of an entry, memory-mapped. Raises OSError, ValueError or TypeError where the entry is damaged."""
    datasets = {
        name: _map_split(_images_file(entry, name), split, index.class_names) for name, split in index.splits.items()
    }
    bad_files = tuple(BadFile(path, reason) for path, reason in index.bad_files)
    splits = SourceSplits(**datasets)
    return LoadedData(
        name=index.name,
        format=index.format,
        splits=splits,
        bad_files=bad_files,
        sizes=index.sizes,
        modes=index.modes,
        notes=index.notes,
        white_16bit=index.white_16bit,
    )


def _map_split(path: Path, split: _SplitIndex, class_names: tuple[str, ...]) -> ImageDataset:
    if path.stat().st_size != math.prod(split.shape):
        raise ValueError("the file has the wrong length")
    # Copy-on-write: torch warns about arrays that are not writable, and nothing writes to them.
    images = np.memmap(path, np.uint8, "c", shape=split.shape)
    return ImageDataset(images, np.array(split.labels, np.int64), class_names, split.ids)
