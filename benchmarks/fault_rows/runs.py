"""Trainings in processes of their own, and what is looked at when they have ended."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import timebox
from timebox.engine.checkpoint import read_checkpoint
from timebox.errors import RunError

LAUNCHER = Path(__file__).with_name("launcher.py")
SOURCE = Path(__file__).resolve().parents[2] / "src"
# Networks of so few channels train thousands of images a second on one core.
BASE = ("--test", "0.2", "--val", "none", "--recipe", "haet2021", "--device", "cpu", "--precision", "fp32")
SMALL = (*BASE, "--set", "width=4", "--set", "batch_size=64", "--set", "flip=none", "--set", "crop_padding=1")
TRAIN = ("train", "digits", *SMALL)
OFTEN = {"interval": 0.1}
MODEL, SUMMARY, CHECKPOINT = "model.safetensors", "summary.json", "checkpoint"
FILES = {
    "examples.npz",
    "group.json",
    "metrics.jsonl",
    "model.json",
    MODEL,
    "predictions.npz",
    "report.html",
    SUMMARY,
    "trained_on.npy",
}
# A training that hangs is not waited for any longer.
LONGEST_SECONDS = 300.0


@dataclass
class Outcome:
    """One row of the table: a kind of fault, how often it was tried, and what went wrong each time it was not
    survived."""

    fault: str
    checked: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def survived(self) -> int:
        return self.tried - len(self.problems)

    def count(self, *problems: str) -> None:
        """Count one trial; empty texts are no problems."""
        self.tried += 1
        if found := [problem for problem in problems if problem]:
            self.problems.append("; ".join(found))


@dataclass(frozen=True)
class Ended:
    """How a process ended: its status (a death by signal as a shell counts it), stderr, stdout and seconds."""

    status: int
    err: str
    out: str
    seconds: float

    def lines_with(self, words: str) -> list[str]:
        """The lines of stderr in which the pattern is found."""
        return [line for line in self.err.splitlines() if re.search(words, line)]


class Process:
    """A running timebox."""

    def __init__(self, words: Sequence[object], faults: Mapping[str, object], env: Mapping[str, str] | None) -> None:
        environment = {
            "OMP_NUM_THREADS": "1",
            **os.environ,
            "PYTHONPATH": str(SOURCE),
            "TIMEBOX_FAULTS": json.dumps(faults),
            **(env or {}),
        }
        self._folder = Path(tempfile.mkdtemp(prefix="timebox-faults-"))
        self._out, self._err = self._folder / "out", self._folder / "err"
        self.started = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [sys.executable, LAUNCHER, *map(str, words)]
            self.popen = subprocess.Popen(command, stdout=out, stderr=err, env=environment)

    def err(self) -> str:
        """stderr so far."""
        return self._err.read_text(errors="replace")

    def wait_for(self, pattern: str) -> bool:
        """Wait until a line of stderr matches; False where the process ended before."""
        while self.popen.poll() is None and time.monotonic() - self.started < LONGEST_SECONDS:
            if re.search(pattern, self.err(), re.MULTILINE):
                return True
            time.sleep(0.005)
        return False

    def is_running_after(self, seconds: float) -> bool:
        """Whether it still runs after so many seconds more."""
        try:
            self.popen.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return True
        return False

    def end(self) -> Ended:
        """Wait for the end."""
        try:
            status = self.popen.wait(LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            status = -9
        seconds = time.monotonic() - self.started
        ended = Ended(status if status >= 0 else 128 - status, self.err(), self._out.read_text(), seconds)
        shutil.rmtree(self._folder)
        return ended


def start(*words: object, faults: Mapping[str, object] = {}, env: Mapping[str, str] | None = None) -> Process:
    """Start `timebox WORDS` with faults built in."""
    return Process(words, faults, env)


def finish(*words: object, faults: Mapping[str, object] = {}, env: Mapping[str, str] | None = None) -> Ended:
    """Run `timebox WORDS` to its end."""
    return start(*words, faults=faults, env=env).end()


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder for a row's runs, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="timebox-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def some_images() -> NDArray[np.uint8]:
    """Four images of the digits' shape."""
    return np.random.default_rng(0).integers(0, 255, (4, 8, 8), np.uint8)


def load_problem(run: Path) -> str:
    """Empty where a run loads and predicts; otherwise why not."""
    try:
        probabilities = timebox.load(run, device="cpu").predict_proba(some_images())
        read_checkpoint(run / CHECKPOINT)
    except RunError as error:
        return str(error)
    except Exception as error:  # whatever else comes out is a defect to be shown
        return f"{type(error).__name__}: {error}"
    return "" if np.isfinite(probabilities).all() else "predictions are not finite"


def says_nothing_saved(problem: str, run: Path) -> bool:
    """Whether a load failed because nothing was saved yet."""
    empty = not run.exists() or not any(run.iterdir())
    return empty or "ended before a model was saved" in problem


def step_of(run: Path) -> int:
    """How far a run has come: the step of its checkpoint; -1 without one."""
    checkpoint = read_checkpoint(run / CHECKPOINT)
    return checkpoint.step if checkpoint else -1


def strays(run: Path, while_writing: bool) -> str:
    """What lies in or beside a run directory and should not.

    Args:
        while_writing: the process was killed and may leave one unfinished file in each folder, and beside the
            checkpoint the manifest names, the one that was to replace it.
    """
    problems = []
    inside = [path.name for path in run.iterdir()] if run.is_dir() else []
    unknown = [name for name in inside if name not in FILES and name != CHECKPOINT]
    folder = run / CHECKPOINT
    kept = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    unfinished = [name for name in kept if name.endswith(".tmp")]
    tensors = [name for name in kept if name.endswith(".safetensors")]
    odd = [name for name in kept if name not in (*unfinished, *tensors, "manifest.json")]
    allowed = 1 if while_writing else 0
    if len(unknown) > allowed or any(not name.endswith(".tmp") for name in unknown):
        problems.append(f"stray files {unknown}")
    if len(unfinished) > allowed or len(tensors) > 1 + allowed or odd:
        problems.append(f"stray files in checkpoint/ {sorted(kept)}")
    return ", ".join(problems)


def hidden_beside(run: Path) -> list[str]:
    """Names beside a run directory that begin with a dot."""
    return sorted(path.name for path in run.parent.iterdir() if path.name.startswith("."))


def summary_of(run: Path) -> dict[str, object]:
    """summary.json; empty where there is none."""
    path = run / SUMMARY
    return json.loads(path.read_text()) if path.is_file() else {}


def is_finished(run: Path) -> bool:
    """Whether a run came to its end."""
    summary = summary_of(run)
    return bool(summary) and not summary.get("stopped")


def finished_problem(run: Path, steps: int | None = None) -> str:
    """Why a run that ended by itself is not whole; empty where it is."""
    summary = summary_of(run)
    checks = {
        "the summary is not complete": isinstance(summary.get("test_accuracy"), float) and not summary.get("stopped"),
        "the schedule did not reach its end": isinstance(summary.get("final_lr"), float) and summary["final_lr"] < 1e-3,
        f"it took {summary.get('steps')} steps": steps is None or summary.get("steps") == steps,
        "checkpoint/ is still there": not (run / CHECKPOINT).exists(),
    }
    problems = [text for text, right in checks.items() if not right]
    return "; ".join(filter(None, [*problems, load_problem(run), strays(run, while_writing=False)]))


def weights(run: Path) -> bytes:
    """The final weights, as they lie on disk; empty where there are none."""
    path = run / MODEL
    return path.read_bytes() if path.is_file() else b""


def seeded(row: str) -> random.Random:
    """A row's own random numbers: the same whichever rows run."""
    return random.Random(f"timebox {row}")
