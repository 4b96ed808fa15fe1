"""Disk cache of decoded images: a second run does not decode again, and data sets may be larger than memory.

An entry is a folder with the pixels of each split, which are memory-mapped, and an index in JSON, with checksums of all
of it. An entry is used only where every checksum is right, and nobody else can have written it: its folders and files
belong to this user, others may not write to the folders, and none is a link or a pipe.
"""

import contextlib
import hashlib
import math
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.checksums import block_checksums
from timebox.data.arrays.memory_map import allocate_file
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits
from timebox.errors import BudgetError, OutputError
from timebox.files import check_own, parse_json_object, read_open, write_whole, written
from timebox.files.folders import DIRECTORY, Folder, target_of_temporary
from timebox.paths import CACHE_VARIABLE, cache_folder

FORMAT = 3
INDEX, INCOMPLETE_PREFIX = "index.json", ".new-"
MAX_INCOMPLETE_SECONDS = 86_400
_KEY = re.compile("[0-9a-f]{32}")
_IMAGES = ".images"  # ending of the files with pixels; timebox.data.arrays.memory_map begins temporary ones with it
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
        root = cache_folder()
        return root / "prepared" if root else None

    def begin_entry(self, key: str, num_bytes: int) -> "CacheWriter":
        """Begin to write an entry of `num_bytes`, after old entries were removed to make room.

        Raises OutputError, with the reason in words, where the cache cannot be written to or has no room.
        """
        if self._folder is None:
            raise OutputError(f"this user has no home directory, and {CACHE_VARIABLE} is not set")
        with written(repr(str(self._folder))):
            self._folder.mkdir(parents=True, exist_ok=True)
            with Folder(self._folder) as cache:
                check_own(self._folder, cache.status())
                if (kind := cache.kind(key)) not in ("", DIRECTORY):
                    raise OutputError(f"{str(self._folder / key)!r} is a {kind}; remove it")
                if kind:
                    with cache.folder(key) as entry:
                        check_own(entry.path, entry.status())
            if num_bytes > MAX_BYTES or shutil.disk_usage(self._folder).free < num_bytes + MIN_FREE_BYTES:
                raise OutputError(f"{str(self._folder)!r} has no room for {num_bytes / 1e6:,.0f} MB")
            _remove_old_entries(self._folder)
            folder = Path(tempfile.mkdtemp(prefix=INCOMPLETE_PREFIX, dir=self._folder))
        return CacheWriter(folder, self._folder / key)

    def find(
        self, key: str, notify: Callable[[str], None] = lambda text: None, check_time: Callable[[], None] = lambda: None
    ) -> LoadedData | None:
        """The entry of a key; None where there is none, or it cannot be used.

        Args:
            notify: receives one line about an entry that cannot be used.
            check_time: called while checksums are computed; the BudgetError that it raises is passed on.
        """
        if self._folder is None:
            return None
        try:
            with Folder(self._folder) as cache:
                if not cache.kind(key):
                    return None
                check_own(self._folder, cache.status())
                with cache.folder(key) as entry:
                    loaded = _load_entry(entry, check_time)
        except BudgetError:  # also a ValueError
            raise
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, MemoryError) as error:
            reason = str(error) or "they do not fit into memory"  # a MemoryError has no message
            notify(f"the cached images in {str(self._folder / key)!r} are not used, but decoded again: {reason}")
            return None
        with contextlib.suppress(OSError):  # a read-only cache
            os.utime(self._folder / key)
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
            _remove_entry(entry)
            total -= size


def _remove_entry(entry: Path) -> None:
    """Remove the files of an entry that timebox writes, then the folder, unless anything else is in it."""
    with contextlib.suppress(OSError), Folder(entry, follow=False) as folder:
        for name in folder.names():
            is_own = (
                name.endswith(_IMAGES) or name.startswith(f"{_IMAGES}-") or INDEX in (name, target_of_temporary(name))
            )
            if is_own and folder.kind(name) != DIRECTORY:
                folder.remove(name)
        entry.rmdir()


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
            write_whole(self._folder / INDEX, _index(loaded).to_json())
            _remove_entry(self._entry)  # a damaged entry
            self._folder.rename(self._entry)

    def discard(self) -> None:
        """Remove the entry unless it was committed."""
        _remove_entry(self._folder)


def _images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}{_IMAGES}"


def cache_key(content: Sequence[FileFingerprint | bytes], settings: Sequence[object]) -> str:
    """The key of an entry: a hash of the fingerprints or digests of all images, and of all settings of the reader."""
    digest = hashlib.blake2b(repr((FORMAT, *settings)).encode(), digest_size=16)
    for part in content:
        digest.update(part if isinstance(part, bytes) else repr(asdict(part)).encode())
    return digest.hexdigest()


class _SplitIndex(msgspec.Struct):
    shape: tuple[int, int, int, int]
    checksums: tuple[int, ...]
    labels: list[int]
    ids: tuple[str, ...]


class _Index(msgspec.Struct):
    """The content of index.json. ``checksum`` is that of the index with a checksum of 0."""

    name: str
    format: str
    bad_files: tuple[tuple[str, str], ...]  # path, reason
    sizes: dict[str, int]
    modes: dict[str, int]
    notes: tuple[str, ...]
    white_16bit: int
    class_names: tuple[str, ...]
    splits: dict[str, _SplitIndex]
    checksum: int = 0

    def to_json(self) -> bytes:
        """The content of the file, with its checksum."""
        return msgspec.json.encode(msgspec.structs.replace(self, checksum=self._own_checksum()))

    def check(self) -> None:
        """Raise ValueError where the checksum is not right."""
        if self.checksum != self._own_checksum():
            raise ValueError(f"{INDEX} is damaged: its checksum is wrong")

    def _own_checksum(self) -> int:
        return zlib.crc32(msgspec.json.encode(msgspec.structs.replace(self, checksum=0)))


def _index(loaded: LoadedData) -> _Index:
    bad_files = tuple((bad.path, bad.reason) for bad in loaded.bad_files)
    splits = {
        name: _SplitIndex(split.images.shape, tuple(block_checksums(split.images)), split.labels.tolist(), split.ids)
        for name, split in loaded.splits.items()
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


def _load_entry(entry: Folder, check_time: Callable[[], None]) -> LoadedData:
    """The data of an entry, memory-mapped. Raises OSError, ValueError, TypeError or MemoryError where it is damaged."""
    check_own(entry.path, entry.status())
    with entry.open_regular(INDEX) as file:
        _own_size(file, entry.path / INDEX)
        index = msgspec.convert(parse_json_object(read_open(file, _MAX_INDEX_BYTES)), _Index)
    index.check()
    datasets = {
        name: _map_split(entry, name, split, index.class_names, check_time) for name, split in index.splits.items()
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


def _map_split(
    entry: Folder, name: str, split: _SplitIndex, class_names: tuple[str, ...], check_time: Callable[[], None]
) -> ImageDataset:
    path = _images_file(entry.path, name)
    with entry.open_regular(path.name) as file:
        if (size := _own_size(file, path)) != math.prod(split.shape):
            raise ValueError(f"{path.name} has {size:,} bytes in place of {math.prod(split.shape):,}")
        # Copy-on-write: torch warns about arrays that are not writable, and nothing writes to them. The file that was
        # checked is mapped, whatever the name leads to by now; the array keeps the name.
        with open(path, "rb", opener=lambda *_: os.dup(file.fileno())) as named:  # Path has no opener
            images = np.memmap(named, np.uint8, "c", shape=split.shape)
    expected = iter(split.checksums)
    if any(found != next(expected, None) for found in block_checksums(images, check_time)):
        raise ValueError(f"{path.name} is damaged: its checksum is wrong")
    return ImageDataset(images, np.array(split.labels, np.int64), class_names, split.ids)


def _own_size(file: BinaryIO, path: Path) -> int:
    """Size of a file in bytes. Raises OutputError for one of another user."""
    status = os.fstat(file.fileno())
    check_own(path, status)
    return status.st_size
