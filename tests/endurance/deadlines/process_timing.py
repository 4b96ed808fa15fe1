"""A timebox command watched from outside: when it started, what it said, when it was gone."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random

from timebox.clock import parse_budget

TRAINING_BEGINS = re.compile(r"\s*[\d.]+s  training")
RESERVE = re.compile(r"([\d.hms]+) in reserve")


@dataclass(frozen=True)
class ReadResult:
    """How a command ended.

    Attributes:
        wall_seconds: from before the process was made to its exit.
        stalled_seconds: the longest time for which the observer itself, a sleeper, was not woken: where the machine
            stood still, or others held its processors, it shows here.
    """

    status: int
    wall_seconds: float
    stalled_seconds: float
    stdout: str
    stderr: str
    disturbance: Mapping[str, object]


class Observed:
    """A running command.

    Attributes:
        planned: set once the training begins, or the process has nothing more to say.
        ended: set once the process is gone.
        training_at: seconds from the start to the training, None before.
        reserve_seconds: as the plan printed it, None before.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.planned, self.ended = threading.Event(), threading.Event()
        self.training_at: float | None = None
        self.reserve_seconds: float | None = None
        self.stdout = self.stderr = ""
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self._readers = [threading.Thread(target=read) for read in (self._read_stdout, self._read_stderr)]
        for reader in self._readers:
            reader.start()

    def elapsed(self) -> float:
        """Seconds since just before the process was made."""
        return time.monotonic() - self._started

    def wait(self) -> tuple[int, float]:
        """Exit status and seconds to the exit."""
        status = self.process.wait()
        seconds = self.elapsed()
        self.ended.set()
        for reader in self._readers:
            reader.join()
        return status, seconds

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self.stdout = stream.read()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.stderr += line
                if found := RESERVE.search(line):
                    self.reserve_seconds = parse_budget(found[1])
                if TRAINING_BEGINS.fullmatch(line.rstrip("\n")):
                    self.training_at = self.elapsed()
                    self.planned.set()
        self.planned.set()


HEARTBEAT_SECONDS = 0.05

Disturbance = Callable[[Observed, float, Random], Mapping[str, object]]


def observe(
    command: Sequence[str],
    budget_seconds: float,
    disturb: Disturbance,
    random: Random,
    environment: Mapping[str, str] | None = None,
) -> ReadResult:
    """Run a command beside a disturbance. One that hangs is killed long after its budget.

    Args:
        disturb: called in a thread of its own with the running command, the budget and ``random``; returns once it is
            over or the command has ended, and gives what there is to say of it.
        environment: of the process, default this one's.
    """
    observed = Observed(command, os.environ if environment is None else environment)
    hang = threading.Timer(3 * budget_seconds + 60, observed.process.kill)
    with ThreadPoolExecutor(2) as beside:
        stalled_seconds = beside.submit(longest_stall, observed.ended)
        happened = beside.submit(disturb, observed, budget_seconds, random)
        hang.start()
        try:
            status, wall_seconds = observed.wait()
        finally:
            hang.cancel()
            observed.process.kill()
            observed.ended.set()
    return ReadResult(
        status, wall_seconds, stalled_seconds.result(), observed.stdout, observed.stderr, happened.result()
    )


def longest_stall(ended: threading.Event) -> float:
    """Beat until ``ended``; the seconds by which the latest beat came too late."""
    longest, last = 0.0, time.monotonic()
    while not ended.wait(HEARTBEAT_SECONDS):
        moment = time.monotonic()
        longest, last = max(longest, moment - last - HEARTBEAT_SECONDS), moment
    return longest
