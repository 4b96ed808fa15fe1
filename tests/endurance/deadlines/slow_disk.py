"""Runs `timebox` in a process whose disk is slow.

    python tests/endurance/deadlines/slow_disk.py [--fsync-seconds 0.5] [--megabytes-per-second 20] -- train DATA …

Each `os.fsync` takes so long, and longer by what was written to the file since the last one. The rest is the command
itself, to its very exit.
"""

import argparse
import os
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fsync-seconds", type=float, default=0.5)
    parser.add_argument("--megabytes-per-second", type=float, default=20.0)
    split = sys.argv.index("--")
    arguments = parser.parse_args(sys.argv[1:split])
    slow_down_disk(arguments.fsync_seconds, arguments.megabytes_per_second)
    sys.argv = ["timebox", *sys.argv[split + 1 :]]
    sys.path.pop(0)  # the folder of this file, which the command itself would not see

    from timebox.cli import main as timebox

    timebox()


def slow_down_disk(fsync_seconds: float, megabytes_per_second: float) -> None:
    """Let every later `os.fsync` of this process wait as for such a disk."""
    fsync = os.fsync
    synced: dict[tuple[int, int], int] = {}

    def slow_fsync(file: int) -> None:
        fsync(file)
        status = os.fstat(file)
        before = synced.get((status.st_dev, status.st_ino), 0)
        synced[status.st_dev, status.st_ino] = status.st_size
        # A file smaller than before is a new one under an old number.
        written = status.st_size - before if status.st_size >= before else status.st_size
        time.sleep(fsync_seconds + written / (1e6 * megabytes_per_second))

    vars(os)["fsync"] = slow_fsync


if __name__ == "__main__":
    main()
