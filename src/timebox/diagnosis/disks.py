"""The disks that runs and the cache are written to: whether they can be, how fast, and how much room is left."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timebox.clock import now
from timebox.diagnosis.shown_paths import shown_path
from timebox.machine import format_bytes
from timebox.paths import CACHE_VARIABLE, cache_folder

RUNS, CACHE = "runs", "cache"
# A write of so many bytes is what a small file of a run takes.
PROBE_BYTES = 1 << 18
NUM_WRITES = 3
# Above this a run of a minute spends a tenth of its time on checkpoints and results.
SLOW_SECONDS = 0.3
LITTLE_BYTES = 2 << 30


@dataclass(frozen=True)
class Disk:
    """The disk of one folder.

    Attributes:
        use: ``runs`` or ``cache``.
        folder: as it is printed, with ``~`` for the home directory; None where there is none.
        write_seconds: to write and sync a file of 256 KB, the median of three; None where it cannot be written.
        free_bytes: left on the disk for this user; None where unknown.
        error: why it cannot be written to.
    """

    use: str
    folder: str | None
    write_seconds: float | None = None
    free_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class CacheContent:
    """Decoded images and measured speeds that are kept between runs: bytes, and data sets among them."""

    num_datasets: int
    num_bytes: int


def disks() -> list[Disk]:
    """The disks of new runs, which are written to ``runs/`` here, and of the cache."""
    runs = Path(RUNS)
    here = measured_disk(RUNS, runs if os.path.lexists(runs) else Path(), f"./{RUNS}")
    cache = cache_folder()
    if cache is None:
        return [here, Disk(CACHE, None, error=f"this user has no home directory, and {CACHE_VARIABLE} is not set")]
    return [here, measured_disk(CACHE, _existing(cache), shown_path(cache))]


def measured_disk(use: str, folder: Path, shown: str) -> Disk:
    """Write a file of 256 KB into the folder three times, and remove it again."""
    content, seconds = os.urandom(PROBE_BYTES), []
    try:
        free_bytes = shutil.disk_usage(folder).free
        for _ in range(NUM_WRITES):
            started = now()
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".timebox-") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                seconds.append(now() - started)
    except OSError as error:
        return Disk(use, shown, error=error.strerror or str(error))
    return Disk(use, shown, sorted(seconds)[NUM_WRITES // 2], free_bytes)


def cache_content() -> CacheContent:
    """The content of this user's cache; nothing where there is none."""
    folder = cache_folder()
    if folder is None or not folder.is_dir():
        return CacheContent(0, 0)
    num_bytes = sum(size for _, size in _files(folder))
    entries = folder / "prepared"
    return CacheContent(sum(1 for _ in entries.iterdir()) if entries.is_dir() else 0, num_bytes)


def disk_problems(found: list[Disk]) -> Iterator[str]:
    """A sentence for each thing that is wrong with a disk, and what to do."""
    for disk in found:
        other = "give --out on another disk" if disk.use == RUNS else f"set {CACHE_VARIABLE} to a folder on another"
        place = f"{disk.use} ({disk.folder})" if disk.folder else disk.use
        if disk.error:
            yield f"{place} cannot be written to: {disk.error}; {other}"
            continue
        if disk.write_seconds is not None and disk.write_seconds > SLOW_SECONDS:
            yield f"the disk of {place} is slow: a file of 256 KB takes {disk.write_seconds:.1f} s; {other}"
        if disk.free_bytes is not None and disk.free_bytes < LITTLE_BYTES:
            yield f"the disk of {place} has {format_bytes(disk.free_bytes)} left: free some, or {other}"


def _existing(folder: Path) -> Path:
    """The folder, or the first of those above it that exists."""
    return next((one for one in (folder, *folder.parents) if one.is_dir()), Path("/"))


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            try:
                yield path, path.lstat().st_size
            except OSError:
                continue
