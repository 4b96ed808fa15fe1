"""Runs `timebox` in a process whose disk is slow.

    python tests/endurance/deadlines/slow_disk.py [--fsync-seconds 0.5] [--megabytes-per-second 20]
        [--from-seconds 5 | --from-file model.safetensors] -- train DATA …

Each `os.fsync` takes so long, and longer by what was written to the file since the last one: from the start, or from a
moment, or from the first sync of a file. The rest is the command itself, to its very exit.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fsync-seconds", type=float, default=0.5)
    parser.add_argument("--megabytes-per-second", type=float, default=20.0)
    parser.add_argument("--from-seconds", type=float, default=0.0, help="when the disk becomes slow")
    parser.add_argument("--from-file", help="the file with whose sync the disk becomes slow")
    split = sys.argv.index("--")
    arguments = parser.parse_args(sys.argv[1:split])
    begins = from_file(arguments.from_file) if arguments.from_file else from_moment(arguments.from_seconds)
    slow_down_disk(arguments.fsync_seconds, arguments.megabytes_per_second, begins)
    sys.argv = ["timebox", *sys.argv[split + 1 :]]
    sys.path.pop(0)  # the folder of this file, which the command itself would not see

    from timebox.cli import main as timebox

    timebox()


def from_moment(seconds: float) -> Callable[[int], bool]:
    """Whether so many seconds have gone by from now on."""
    moment = time.monotonic() + seconds
    return lambda file: time.monotonic() >= moment


def from_file(name: str) -> Callable[[int], bool]:
    """Whether a file of that name has been synced, or the temporary one that takes the name."""
    found: list[str] = []

    def begins(file: int) -> bool:
        synced = Path(f"/proc/self/fd/{file}").readlink().name
        found.extend([synced] if synced == name or synced.startswith(f".{name}.") else [])
        return bool(found)

    return begins


def slow_down_disk(fsync_seconds: float, megabytes_per_second: float, begins: Callable[[int], bool]) -> None:
    """Let every `os.fsync` of this process wait as for such a disk, from the file on for which `begins` is true."""
    fsync = os.fsync
    synced: dict[tuple[int, int], int] = {}

    def slow_fsync(file: int) -> None:
        fsync(file)
        if not begins(file):
            return
        status = os.fstat(file)
        before = synced.get((status.st_dev, status.st_ino), 0)
        synced[status.st_dev, status.st_ino] = status.st_size
        # A file smaller than before is a new one under an old number.
        written = status.st_size - before if status.st_size >= before else status.st_size
        time.sleep(fsync_seconds + written / (1e6 * megabytes_per_second))

    vars(os)["fsync"] = slow_fsync


if __name__ == "__main__":
    main()
