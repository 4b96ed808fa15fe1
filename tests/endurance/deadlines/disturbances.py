"""Disturbances of a run: busy neighbours, SIGSTOP and SIGCONT, files that are not in the page cache."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from deadlines.process_timing import Observed

PROJECT = Path(__file__).resolve().parents[3]
NUM_BUSY = 4
# Ends with the benchmark, also where that is killed.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(1_000_000))"
STOP_SECONDS = 5.0
# What the printed reserve may have been rounded by, and the lateness of this process's own timers.
SLACK_SECONDS = 0.1


def leave_alone(observed: Observed, budget_seconds: float, random: Random) -> Mapping[str, object]:
    """Nothing happens."""
    return {}


def keep_busy(observed: Observed, budget_seconds: float, random: Random) -> Mapping[str, object]:
    """Four processes compute from a random moment until the run is over."""
    moment = random.uniform(0, 0.9 * budget_seconds)
    if observed.ended.wait(moment):
        return {"note": f"the run was over before {moment:.1f}s"}
    began = observed.elapsed()
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(NUM_BUSY)]
    observed.ended.wait()
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    return {"moment": round(began, 3), "seconds": round(observed.elapsed() - began, 3), "processes": NUM_BUSY}


def stop_and_continue(observed: Observed, budget_seconds: float, random: Random) -> Mapping[str, object]:
    """The process stands still for 5 seconds at a random moment of the training that leaves 5 seconds and the reserve.

    Where no moment does, it stands still for half of the time between the beginning of the training and the reserve.
    """
    observed.planned.wait()
    training_at, reserve = observed.training_at, observed.reserve_seconds
    if training_at is None or reserve is None:
        return {"note": "never stopped: no training, or no reserve printed"}
    latest_end = budget_seconds - reserve - SLACK_SECONDS
    begin = observed.elapsed()
    happened: dict[str, object] = {"printed_reserve_seconds": reserve}
    length = STOP_SECONDS
    if latest_end - begin < length:
        length = (latest_end - begin) / 2
        happened["note"] = f"no such moment: training began at {training_at:.1f}s, a stop must end by {latest_end:.1f}s"
        if length <= 0:
            return happened
    if observed.ended.wait(random.uniform(0, latest_end - length - begin)):
        return {**happened, "note": "never stopped: the run was over before"}
    stopped = observed.elapsed()
    observed.process.send_signal(signal.SIGSTOP)
    observed.ended.wait(max(0.0, min(length, latest_end - stopped)))
    observed.process.send_signal(signal.SIGCONT)
    continued = observed.elapsed()
    return {
        **happened,
        "moment": round(stopped, 3),
        "seconds": round(continued - stopped, 3),
        "left_seconds": round(budget_seconds - continued, 3),
    }


class Installation:
    """timebox in a virtual environment of its own, where a run may be the first.

    Args:
        path: an environment that holds timebox is used as it is, elsewhere one is made there; None for a temporary one.
    """

    def __init__(self, path: Path | None) -> None:
        self._temporary = None if path else tempfile.TemporaryDirectory(prefix="timebox-environment-")
        self.path = path or Path(self._temporary.name if self._temporary else "")

    @property
    def timebox(self) -> Path:
        """The installed command."""
        return self.path / "bin" / "timebox"

    def prepare(self, data: Path) -> Mapping[str, object]:
        """Make the next run a first one: install, or forget what an earlier one left behind. Says which."""
        if not self.timebox.exists():
            self._install()
            return {"first": "after install"}
        for cache in self.path.glob("lib/python*/site-packages/timebox/**/__pycache__"):
            shutil.rmtree(cache)
        evicted = evict(self.path.rglob("*")) + evict(data.rglob("*") if data.is_dir() else [data])
        return {"first": "after its files left the page cache", "evicted_megabytes": round(evicted / 1e6)}

    def remove(self) -> None:
        """Take a temporary environment away."""
        if self._temporary:
            self._temporary.cleanup()

    def _install(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", self.path], check=True)
        with tempfile.TemporaryDirectory() as folder:  # a build in place would leave its files in the project
            source = Path(folder) / "timebox"
            source.mkdir()
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(PROJECT / name, source)
            shutil.copytree(PROJECT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            subprocess.run([self.path / "bin" / "python", "-m", "pip", "install", "--quiet", source], check=True)


def evict(paths: Iterable[Path]) -> int:
    """Drop files from the page cache, as far as no other process has them mapped. Returns their bytes."""
    os.sync()  # only what is on the disk can be dropped
    size = 0
    for path in paths:
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            size += path.stat().st_size
    return size
