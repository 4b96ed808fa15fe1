"""Decoded images kept on disk: a second run starts from them, and they may be larger than memory.

An entry is a folder: the pixels of each split as they lie in memory, and an index. Pixels are mapped into memory, where
the system keeps as many of them as there is room for.
"""

import contextlib
import hashlib
import json
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

import numpy as np
from numpy.typing import NDArray

from timebox.data.arrays.memory_map import reserve
from timebox.data.dataset import BadFile, ImageDataset, LoadedData, SourceSplits

FORMAT = 1
INDEX, DRAFT = "index.json", ".new-"
ABANDONED_SECONDS = 86_400
_KEY = re.compile("[0-9a-f]{32}")
CACHE_VARIABLE = "TIMEBOX_CACHE"
# All entries together; the one that was not used for longest goes first. So much of the disk is left to others.
MAX_BYTES, SPARE_BYTES = 64 << 30, 2 << 30


@dataclass(frozen=True)
class Identity:
    """What tells whether a file is the one that was read: a change of what it holds changes one of these."""

    name: str
    size: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path, name: str) -> "Identity":
        """Of a file. Raises OSError."""
        status = path.stat()
        return cls(name, status.st_size, max(status.st_mtime_ns, status.st_ctime_ns), status.st_ino)


class Prepared:
    """The entries in a folder in the one that TIMEBOX_CACHE names, else in the user's cache. It is made when the first
    entry is."""

    @cached_property
    def _folder(self) -> Path:
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named) / "prepared"
        import platformdirs  # what is in memory already needs it not

        return platformdirs.user_cache_path("timebox") / "prepared"

    def has_room(self, num_bytes: int) -> bool:
        """Whether the disk takes so many bytes more, and the folder can be made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return num_bytes <= MAX_BYTES and shutil.disk_usage(self._folder).free >= num_bytes + SPARE_BYTES
        except OSError:
            return False

    def draft(self, key: str) -> "Draft":
        """An entry to be filled, where there is room. Raises OSError."""
        self._make_room()
        return Draft(Path(tempfile.mkdtemp(prefix=DRAFT, dir=self._folder)), self._folder / key)

    def find(self, key: str) -> LoadedData | None:
        """The entry of that key, or None where there is none, or a damaged one."""
        entry = self._folder / key
        try:
            index = json.loads((entry / INDEX).read_text(encoding="utf-8"))
            loaded = _loaded(entry, index)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):  # it can be read, if not written to
            os.utime(entry)
        return loaded

    def _make_room(self) -> None:
        """Remove what was used longest ago, as far as there is too much, and drafts that nobody ended. What is no entry
        is left alone."""
        entries: list[tuple[float, Path, int]] = []
        for entry in self._folder.iterdir():
            if _KEY.fullmatch(entry.name) or entry.name.startswith(DRAFT):
                with contextlib.suppress(OSError):  # another process may be removing it
                    size = sum(file.stat().st_size for file in entry.iterdir())
                    entries.append((entry.stat().st_mtime, entry, size))
        total = sum(size for _, _, size in entries)
        for used, entry, size in sorted(entries):
            abandoned = entry.name.startswith(DRAFT) and time.time() - used > ABANDONED_SECONDS
            if total > MAX_BYTES or abandoned:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size


class Draft:
    """An entry on its way: the pixels are decoded right into its files."""

    def __init__(self, folder: Path, entry: Path) -> None:
        self._folder, self._entry = folder, entry

    def images(self, split: str, shape: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """Where the pixels of a split go: uint8 (N, H, W, C), N above 0. Raises OSError."""
        file = _images_file(self._folder, split)
        reserve(file, math.prod(shape))
        return np.memmap(file, np.uint8, "r+", shape=shape)

    def keep(self, loaded: LoadedData) -> None:
        """Make it the entry. The images are the first ones of those that were made for each split."""
        with contextlib.suppress(OSError):  # the next run prepares anew
            for split, dataset in loaded.splits.items():
                file = _images_file(self._folder, split)
                os.truncate(file, dataset.images.nbytes)
                _flush(file)
            (self._folder / INDEX).write_text(json.dumps(_index(loaded)), encoding="utf-8")
            _flush(self._folder / INDEX)
            shutil.rmtree(self._entry, ignore_errors=True)  # one that could not be read
            self._folder.rename(self._entry)

    def drop(self) -> None:
        """Remove it, unless it was kept."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _flush(file: Path) -> None:
    """Bring a file to the disk, so that an entry that is there after a power cut is whole."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _images_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.images"


def key_of(identities: Sequence[Identity | bytes], choices: Sequence[object]) -> str:
    """The key of images that come from files or are given as bytes, and of all that decides what becomes of them."""
    digest = hashlib.blake2b(repr((FORMAT, *choices)).encode(), digest_size=16)
    for identity in identities:
        digest.update(identity if isinstance(identity, bytes) else repr(asdict(identity)).encode())
    return digest.hexdigest()


def _index(loaded: LoadedData) -> dict[str, object]:
    return {
        "name": loaded.name,
        "format": loaded.format,
        "bad_files": [(bad.path, bad.reason) for bad in loaded.bad_files],
        "sizes": loaded.sizes,
        "modes": loaded.modes,
        "notes": loaded.notes,
        "class_names": loaded.splits.train.class_names,
        "splits": {
            name: {"shape": dataset.images.shape, "labels": dataset.labels.tolist(), "ids": dataset.ids}
            for name, dataset in loaded.splits.items()
        },
    }


def _loaded(entry: Path, index: dict[str, object]) -> LoadedData:
    """Raises OSError, ValueError, KeyError or TypeError where the entry is not what was written."""
    match index:
        case {
            "name": str(name),
            "format": str(format),
            "bad_files": list(bad_files),
            "sizes": dict(sizes),
            "modes": dict(modes),
            "notes": list(notes),
            "class_names": list(class_names),
            "splits": dict(splits),
        }:
            read = {split: _dataset(_images_file(entry, split), kept, class_names) for split, kept in splits.items()}
        case _:
            raise ValueError("it lacks something")
    bad = tuple(BadFile(path, reason) for path, reason in bad_files)
    parts = SourceSplits(read["train"], read.get("val"), read.get("test"))
    return LoadedData(name, format, parts, bad, sizes, modes, tuple(notes))


def _dataset(path: Path, kept: dict[str, list[object]], class_names: list[str]) -> ImageDataset:
    shape = tuple(int(str(length)) for length in kept["shape"])
    if path.stat().st_size != np.prod(shape):
        raise ValueError("it has another length than was written")
    # Copied where it is written to, which nobody does: torch warns of what cannot be written to.
    images = np.memmap(path, np.uint8, "c", shape=shape)
    return ImageDataset(images, np.array(kept["labels"], np.int64), tuple(class_names), tuple(map(str, kept["ids"])))
