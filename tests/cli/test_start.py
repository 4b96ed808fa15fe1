"""The command line starts at once, as `timebox` and as `python -m timebox`."""

import statistics
import subprocess
import sys
import time

from timebox.version import VERSION


def seconds_of(*argv: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "timebox", *argv], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def test_help_answers_at_once() -> None:
    # 0.1 s on an idle machine, where 0.3 is the promise; a busy one gets twice that.
    assert statistics.median(seconds_of("--help") for _ in range(3)) < 0.6


def test_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "timebox", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"timebox {VERSION}\n", "")
