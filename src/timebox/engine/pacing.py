"""How far each step advances the schedule: by counting steps, or by watching the clock.

A pacer says where in the schedule each step ends; the last one ends at exactly 1. The schedule is therefore always
brought to its end, whatever happened to the machine's speed on the way.
"""

from collections import deque
from collections.abc import Callable
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
        step_seconds: a first estimate of one step, replaced by measurements as they come in.
        now: a clock in seconds.
    """

    WINDOW = 16

    def __init__(self, seconds_left: Callable[[], float], step_seconds: float, now: Callable[[], float]) -> None:
        self._seconds_left = seconds_left
        self._estimate = step_seconds
        self._now = now
        self._progress = 0.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=self.WINDOW)
        self._resumed_at = now()
        self._steps_left = self._fitting(0)

    def next(self, num_unfinished: int) -> float | None:
        if self._progress >= 1.0:
            return None
        self._steps_left = self._fitting(num_unfinished)
        self._progress += (1.0 - self._progress) / self._steps_left
        if self._steps_left == 1:
            self._progress = 1.0
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
        """Seconds one step takes: the mean of the latest ones.

        The very first steps warm caches and are slow; once the window is full they no longer count.
        """
        seconds, steps = (sum(column) for column in zip(*self._recent, strict=True)) if self._recent else (0.0, 0)
        return seconds / steps if steps else self._estimate

    @property
    def steps_left(self) -> int:
        return self._steps_left if self._progress < 1.0 else 0

    def _fitting(self, num_unfinished: int) -> int:
        """Whole steps that fit into the time left, at least one: the schedule is always brought to its end.

        Time is kept for the last one to be as slow as the slowest of the latest.
        """
        slowest = max((seconds / steps for seconds, steps in self._recent), default=self._estimate)
        spare = slowest - self.step_seconds
        return max(1, int((self._seconds_left() - spare) / self.step_seconds) - num_unfinished)
