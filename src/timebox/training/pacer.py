"""How far each step advances the schedule: by counting steps, or by watching the clock.

A pacer says where in the schedule each step ends; the last one ends at exactly 1. The schedule is therefore always
brought to its end, whatever happened to the machine's speed on the way.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from math import ceil
from statistics import median_low
from typing import Protocol

from timebox.data.device.resize import FULL_SIZE, Resizing

# The landing, the last stretch of a schedule, in which the rate falls below a tenth of its peak, takes so many steps
# even when time has run short: weights that jump from a large rate to none are noisy.
WARMDOWN_STEPS = 8


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

    def rewind(self, step: int, progress: float) -> None:
        """Go on from where the schedule stood after ``step`` steps."""

    @property
    def step_seconds(self) -> float:
        """Seconds one step takes; 0 where no clock is read."""

    @property
    def steps_left(self) -> int:
        """How many steps are still to come, as far as is known."""


class StepPacer:
    """A fixed number of equal steps. Reads no clock, so that a run can be repeated exactly.

    Args:
        num_steps: 1 or more.
    """

    step_seconds = 0.0

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

    def rewind(self, step: int, progress: float) -> None:
        self._issued = step

    @property
    def steps_left(self) -> int:
        return self._num_steps - self._issued


class ClockPacer:
    """As many steps as the time left allows, at the speed of the latest ones.

    Steps on small images are cheaper than the full ones at the end. Time is counted in full steps, and each step
    advances the schedule by its share of one, so that progress runs evenly with the time.

    Before each step the rest of the schedule is spread evenly over the steps that still fit. When the machine slows
    down, later steps advance further, when it speeds up, less far; nothing that has been done is undone, and the last
    step that fits takes what is left. Where few steps are left, the landing gets its share of them first.

    Args:
        seconds_left: reads the time until training must have ended.
        step_seconds: a first estimate of one step, above 0, replaced by measurements as they come in.
        now: a clock in seconds.
        landing_at: progress, 0...1, at which the landing begins; 1 for none.
        overtime_seconds: how far the landing may reach beyond the end of the time.
        resizing: the size of the images by progress, which a step's cost goes with; whole from the landing on.
    """

    WINDOW = 16
    # The estimate counts as so many steps until the window is full, so that a cold start does not decide alone.
    NUM_ESTIMATES = 3
    # A step this many times slower than the typical one is a stall.
    STALL = 10

    def __init__(
        self,
        seconds_left: Callable[[], float],
        step_seconds: float,
        now: Callable[[], float],
        warmdown_start: float = 1.0,
        overtime_seconds: float = 0.0,
        resizing: Resizing = FULL_SIZE,
    ) -> None:
        self._seconds_left = seconds_left
        self._now = now
        self._warmdown_start, self._overtime_seconds = warmdown_start, overtime_seconds
        self._resizing = resizing
        self._progress = 0.0
        # What the steps issued and not yet finished cost, in full steps.
        self._unfinished: deque[float] = deque()
        self._recent = deque([(step_seconds, 1.0)] * self.NUM_ESTIMATES, maxlen=self.WINDOW)
        self._resumed_at = now()
        self._steps_left = round(resizing.steps_in(self._fitting(0), 0.0))

    def next(self, num_unfinished: int) -> float | None:
        if self._progress >= 1.0:
            return None
        cost = self._resizing.cost_at(self._progress)
        self._progress, full_steps = self._advanced(self._fitting(num_unfinished), num_unfinished, cost)
        self._steps_left = round(self._resizing.steps_in(full_steps, self._progress))
        self._unfinished.append(cost)
        return self._progress

    def finished(self, num_steps: int) -> None:
        if num_steps:
            moment = self._now()
            work = sum(self._unfinished.popleft() if self._unfinished else 1.0 for _ in range(num_steps))
            self._recent.append((moment - self._resumed_at, work))
            self._resumed_at = moment

    def paused(self) -> None:
        """Leave the time since the last finished step out of the measured speed."""
        self._resumed_at = self._now()

    def rewind(self, step: int, progress: float) -> None:
        self._progress = progress
        self._unfinished.clear()
        self._resumed_at = self._now()

    @property
    def step_seconds(self) -> float:
        """Seconds a full step takes: the mean of the latest ones, stalls left out."""
        usual = self._usual()
        return max(sum(seconds for seconds, _ in usual) / sum(steps for _, steps in usual), 1e-9)

    @property
    def steps_left(self) -> int:
        return self._steps_left

    def _advanced(self, fitting: int, num_unfinished: int, cost: float) -> tuple[float, float]:
        """Progress after the next step, and the full steps then left."""
        left, warmdown = 1.0 - self._progress, 1.0 - self._warmdown_start
        if self._progress < self._warmdown_start:
            # No time for a step to the landing and one more, not even beyond the end.
            if warmdown and fitting == 1 and self._affordable(num_unfinished) < 2:
                return 1.0, 0
            before = max(1, fitting - WARMDOWN_STEPS) if warmdown else fitting
            # Where time has run out, a step on small images takes the schedule as far as any other.
            share = cost if before > 1 else 1.0
            advance = share * max(left / fitting, (self._warmdown_start - self._progress) / before)
            # Not a sliver further: rounding must not take the first step of the landing with it.
            progress = min(self._progress + advance, self._warmdown_start) if before == 1 else self._progress + advance
            return (1.0, 0) if progress >= 1.0 else (progress, max(fitting - share, 1))
        steps = max(fitting, self._warmdown_steps(left / warmdown, num_unfinished)) if warmdown else fitting
        return (1.0, 0) if steps == 1 else (self._progress + left / steps, steps - 1)

    def _warmdown_steps(self, share: float, num_unfinished: int) -> int:
        """Steps that this share of the landing should have, as far as the overtime allows."""
        return min(ceil(WARMDOWN_STEPS * share - 1e-9), self._affordable(num_unfinished))

    def _affordable(self, num_unfinished: int) -> int:
        """Steps until the overtime is up."""
        return int((self._seconds_left() + self._overtime_seconds) / self.step_seconds - self._work(num_unfinished))

    def _fitting(self, num_unfinished: int) -> int:
        """Whole steps that fit into the time left, at least one: the schedule is always brought to its end.

        Time is kept for the last one to be as slow as the slowest of the latest.
        """
        step_seconds = self.step_seconds
        spare = max(seconds / steps for seconds, steps in self._usual()) - step_seconds
        return max(1, int((self._seconds_left() - spare) / step_seconds - self._work(num_unfinished)))

    def _work(self, num_unfinished: int) -> float:
        """What the steps in flight cost, in full steps."""
        return sum(islice(reversed(self._unfinished), num_unfinished))

    def _usual(self) -> list[tuple[float, float]]:
        """The latest (seconds, steps) without stalls, which say nothing about the steps to come: a cold start, or a
        machine that stood still for a while. A slowdown that lasts is soon what is typical."""
        typical = median_low(seconds / steps for seconds, steps in self._recent)
        return [(seconds, steps) for seconds, steps in self._recent if seconds <= self.STALL * typical * steps]
