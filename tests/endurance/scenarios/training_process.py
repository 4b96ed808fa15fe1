"""Trainings in processes of their own, with faults injected."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).with_name("fault_injection.py")
SOURCE = Path(__file__).resolve().parents[3] / "src"
# Networks of so few channels train thousands of images a second on one core.
BASE = ("--test", "0.2", "--val", "none", "--recipe", "haet2021", "--device", "cpu", "--precision", "fp32")
SMALL = (*BASE, "--set", "width=4", "--set", "batch_size=64", "--set", "flip=none", "--set", "crop_padding=1")
TRAIN = ("train", "digits", *SMALL)
# Checkpoints every tenth of a second.
OFTEN = {"interval": 0.1}
# A training that hangs is not waited for any longer.
LONGEST_SECONDS = 300.0
POLL_SECONDS = 0.005


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
            command = [sys.executable, PROGRAM, *map(str, words)]
            self.popen = subprocess.Popen(command, stdout=out, stderr=err, env=environment)

    def err(self) -> str:
        """stderr so far."""
        return self._err.read_text(errors="replace")

    def wait_for(self, pattern: str) -> bool:
        """Wait until a line of stderr matches; False where the process ended without one."""
        return self.wait_until(lambda: re.search(pattern, self.err(), re.MULTILINE) is not None)

    def wait_until(self, is_reached: Callable[[], bool]) -> bool:
        """Poll until a state is reached; False where the process ended, or hung, without reaching it."""
        while self.popen.poll() is None and time.monotonic() - self.started < LONGEST_SECONDS:
            if is_reached():
                return True
            time.sleep(POLL_SECONDS)
        return is_reached()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Inside, the process is stopped, so that its files stay as they are."""
        self.popen.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.popen.send_signal(signal.SIGCONT)

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
    """Start `timebox WORDS` with faults injected, as fault_injection.py describes them."""
    return Process(words, faults, env)


def finish(*words: object, faults: Mapping[str, object] = {}, env: Mapping[str, str] | None = None) -> Ended:
    """Run `timebox WORDS` to its end."""
    return start(*words, faults=faults, env=env).end()


@contextmanager
def workplace() -> Iterator[Path]:
    """An empty folder for runs, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="timebox-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seeded(scenario: str) -> random.Random:
    """A scenario's own random numbers: the same whichever others run."""
    return random.Random(f"timebox {scenario}")
