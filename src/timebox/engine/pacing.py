"""How far each step advances the schedule: by counting steps, or by watching the clock.

A pacer says where in the schedule each step ends; the last one ends at exactly 1. The schedule is therefore always
brought to its end, whatever happened to the machine's speed on the way.
"""

from collections import deque
from collections.abc import Callable
from statistics import median_low
from typing import Protocol


class Pacer(Protocol):
    """Decides whether another step is taken and how far it takes the schedule."""

    def next(self, num_unfinished: int) -> float | None:
        """The progress, 0...1, at which the next step ends; None when the schedule is at its end.

        Args:
            num_unfinished: steps issued to the device but not finished yet.
        """

    def finished(self, num_steps: int) -> None:
        """``num_steps`` more steps have been finished by the device."""

    def paused(self) -> None:
        """The time since the last finished step went into something else than training."""

    @property
    def steps_left(self) -> int:
        """How many steps are still to come, as far as is known."""


class StepPacer:
    """A fixed number of equal steps. Reads no clock, so that a run can be repeated exactly.

    Args:
        num_steps: 1 or more.
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._issued = 0

    def next(self, num_unfinished: int) -> float | None:
        if self._issued == self._num_steps:
            return None
        self._issued += 1
        return self._issued / self._num_steps

    def finished(self, num_steps: int) -> None:
        """Nothing to learn from it."""

    def paused(self) -> None:
        """Nothing to leave out."""

    @property
    def steps_left(self) -> int:
        return self._num_steps - self._issued


class ClockPacer:
    """As many steps as the time left allows, at the speed of the latest ones.

    Before each step the rest of the schedule is spread evenly over the steps that still fit. When the machine slows
    down, later steps advance further, when it speeds up, less far; nothing that has been done is undone, and the last
    step that fits takes what is left.

    Args:
        seconds_left: reads the time until training must have ended.
        step_seconds: a first estimate of one step, above 0, replaced by measurements as they come in.
        now: a clock in seconds.
    """

    WINDOW = 16
    # The estimate counts as so many steps until the window is full, so that a cold start does not decide alone.
    NUM_ESTIMATES = 3
    # A step this many times slower than the typical one is a stall.
    STALL = 10

    def __init__(self, seconds_left: Callable[[], float], step_seconds: float, now: Callable[[], float]) -> None:
        self._seconds_left = seconds_left
        self._now = now
        self._progress = 0.0
        self._recent = deque([(step_seconds, 1)] * self.NUM_ESTIMATES, maxlen=self.WINDOW)
        self._resumed_at = now()
        self._steps_left = self._fitting(0)

    def next(self, num_unfinished: int) -> float | None:
        if self._progress >= 1.0:
            return None
        fitting = self._fitting(num_unfinished)
        self._progress = 1.0 if fitting == 1 else self._progress + (1.0 - self._progress) / fitting
        self._steps_left = fitting - 1
        return self._progress

    def finished(self, num_steps: int) -> None:
        if num_steps:
            moment = self._now()
            self._recent.append((moment - self._resumed_at, num_steps))
            self._resumed_at = moment

    def paused(self) -> None:
        """Leave the time since the last finished step out of the measured speed."""
        self._resumed_at = self._now()

    @property
    def step_seconds(self) -> float:
        """Seconds one step takes: the mean of the latest ones, stalls left out."""
        usual = self._usual()
        return max(sum(seconds for seconds, _ in usual) / sum(steps for _, steps in usual), 1e-9)

    @property
    def steps_left(self) -> int:
        return self._steps_left

    def _fitting(self, num_unfinished: int) -> int:
        """Whole steps that fit into the time left, at least one: the schedule is always brought to its end.

        Time is kept for the last one to be as slow as the slowest of the latest.
        """
        step_seconds = self.step_seconds
        spare = max(seconds / steps for seconds, steps in self._usual()) - step_seconds
        return max(1, int((self._seconds_left() - spare) / step_seconds) - num_unfinished)

    def _usual(self) -> list[tuple[float, int]]:
        """The latest (seconds, steps) without stalls, which say nothing about the steps to come: a cold start, or a
        machine that stood still for a while. A slowdown that lasts is soon what is typical."""
        typical = median_low(seconds / steps for seconds, steps in self._recent)
        return [(seconds, steps) for seconds, steps in self._recent if seconds <= self.STALL * typical * steps]
