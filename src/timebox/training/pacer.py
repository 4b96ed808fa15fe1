"""Pacers: how far each step advances the schedule, by counting steps or by reading the clock.

The last step of a pacer ends at a progress of exactly 1, however the speed of the machine changes on the way.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, takewhile
from math import ceil
from statistics import median_low
from typing import Protocol

from timebox.data.device.resize import FULL_SIZE, Resizing

# Fewest steps of the warmdown, even when time has run short: weights that jump from a large learning rate to none are
# noisy.
WARMDOWN_STEPS = 8


class Pacer(Protocol):
    """Decides whether another step is run, and the progress at its end."""

    def next(self, num_unfinished: int) -> float | None:
        """Progress, 0...1, at the end of the next step, with ``num_unfinished`` steps in flight; None at the end."""

    def count_finished(self, num_steps: int) -> None:
        """Count ``num_steps`` more steps as finished by the device."""

    def restart_timer(self) -> None:
        """Exclude the time since the last finished step from the measured speed: it was no training."""

    def rewind(self, step: int, progress: float) -> None:
        """Continue from where the schedule stood after ``step`` steps."""

    @property
    def step_seconds(self) -> float:
        """Seconds per step; 0 where no clock is read."""

    @property
    def steps_left(self) -> int:
        """Steps still to come, as far as is known."""


class StepPacer:
    """A fixed number of equal steps. Reads no clock, so that a run can be repeated exactly."""

    step_seconds = 0.0

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._num_issued = 0

    def next(self, num_unfinished: int) -> float | None:
        if self._num_issued >= self._num_steps:  # above it after a rewind to a step that is not of this plan
            return None
        self._num_issued += 1
        return self._num_issued / self._num_steps

    def count_finished(self, num_steps: int) -> None:
        """No speed is measured."""

    def restart_timer(self) -> None:
        """No speed is measured."""

    def rewind(self, step: int, progress: float) -> None:
        self._num_issued = step

    @property
    def steps_left(self) -> int:
        return self._num_steps - self._num_issued


@dataclass(frozen=True)
class Warmdown:
    """The last part of a schedule, in which the learning rate is below a tenth of its maximum.

    Attributes:
        start: progress at which it begins, 0...1; 1 for no warmdown.
        overtime_seconds: how far it may extend beyond the end of the time, 0 or more.
    """

    start: float = 1.0
    overtime_seconds: float = 0.0


NO_WARMDOWN = Warmdown()


class ClockPacer:
    """As many steps as the time left allows, at the speed of the latest steps.

    Before each step the rest of the schedule is spread evenly over the steps that still fit. When the machine slows
    down, later steps advance further; when it speeds up, less far. The last step that fits completes the schedule.
    Where few steps are left, the warmdown gets its share of them first.

    Time is counted in full-size steps. A step on small images costs a fraction of one and advances the schedule by that
    fraction, so that progress is proportional to time.

    Args:
        seconds_left: reads the time until training must have ended.
        step_seconds: a first estimate of one full-size step, above 0, replaced by measurements as they come in.
        now: a clock in seconds.
        resizing: the size of the images by progress; full size from the warmdown on.
        notify: receives seconds and cost in full-size steps of each measurement.
    """

    WINDOW = 16
    # Measured steps as which the estimate counts until the window is full, so that one cold start does not decide.
    NUM_ESTIMATES = 3
    # A step this many times slower than the median is a stall, and does not count. So many of them in a row are another
    # load: only steps from there on count. So do so many steps in a row that are this many times faster.
    STALL, SLOW_STEPS = 10, 4
    FAST, FAST_STEPS = 3, 2

    def __init__(
        self,
        seconds_left: Callable[[], float],
        step_seconds: float,
        now: Callable[[], float],
        warmdown: Warmdown = NO_WARMDOWN,
        resizing: Resizing = FULL_SIZE,
        notify: Callable[[float, float], None] = lambda seconds, cost: None,
    ) -> None:
        self._seconds_left, self._now, self._notify = seconds_left, now, notify
        self._warmdown, self._resizing = warmdown, resizing
        self._progress = 0.0
        # Cost of each step that is issued and not finished, in full-size steps.
        self._unfinished: deque[float] = deque()
        # (seconds, cost in full-size steps) of the latest measurements.
        self._recent = deque([(step_seconds, 1.0)] * self.NUM_ESTIMATES, maxlen=self.WINDOW)
        self._timer_start = now()
        self._steps_left = round(resizing.steps_in(self._num_fitting(0), 0.0))

    def next(self, num_unfinished: int) -> float | None:
        if self._progress >= 1.0:
            return None
        cost = self._resizing.cost_at(self._progress)
        if self._must_end():
            progress, full_steps = 1.0, 0.0
        elif self._progress < self._warmdown.start:
            progress, full_steps = self._advance_before_warmdown(num_unfinished, cost)
        else:
            progress, full_steps = self._advance_in_warmdown(num_unfinished)
        self._progress, full_steps = (1.0, 0) if progress >= 1.0 else (progress, full_steps)
        self._steps_left = round(self._resizing.steps_in(full_steps, self._progress))
        self._unfinished.append(cost)
        return self._progress

    def count_finished(self, num_steps: int) -> None:
        if num_steps:
            now = self._now()
            cost = sum(self._unfinished.popleft() if self._unfinished else 1.0 for _ in range(num_steps))
            seconds, self._timer_start = now - self._timer_start, now
            self._recent.append((seconds, cost))
            self._forget_other_speeds()
            self._notify(seconds, cost)

    def restart_timer(self) -> None:
        self._timer_start = self._now()

    def rewind(self, step: int, progress: float) -> None:
        self._progress = progress
        self._unfinished.clear()
        self.restart_timer()

    @property
    def step_seconds(self) -> float:
        """Seconds per full-size step: the mean of the latest steps, without stalls."""
        typical = self._without_stalls()
        return max(sum(seconds for seconds, _ in typical) / sum(steps for _, steps in typical), 1e-9)

    @property
    def steps_left(self) -> int:
        return self._steps_left

    def _advance_before_warmdown(self, num_unfinished: int, cost: float) -> tuple[float, float]:
        """Progress after the next step, and the number of full-size steps left after it."""
        num_fitting, start = self._num_fitting(num_unfinished), self._warmdown.start
        has_warmdown = start < 1.0
        # No time to reach the warmdown and run one more step, even with the overtime.
        if has_warmdown and num_fitting == 1 and self._num_affordable(num_unfinished) < 2:
            return 1.0, 0
        num_before = max(1, num_fitting - WARMDOWN_STEPS) if has_warmdown else num_fitting
        # With one step left before the warmdown, a step on small images must reach as far as a full-size step.
        share = cost if num_before > 1 else 1.0
        full_step = max((1.0 - self._progress) / num_fitting, (start - self._progress) / num_before)
        progress = self._progress + share * full_step
        # Rounding must not carry the last step before the warmdown past its start.
        return (min(progress, start) if num_before == 1 else progress), max(num_fitting - share, 1)

    def _advance_in_warmdown(self, num_unfinished: int) -> tuple[float, float]:
        """Progress after the next step, and the number of full-size steps left after it."""
        left = 1.0 - self._progress
        # The steps for the rest of the warmdown, as far as the overtime allows.
        num_wanted = ceil(WARMDOWN_STEPS * (left / (1.0 - self._warmdown.start)) - 1e-9)
        num_steps = max(self._num_fitting(num_unfinished), min(num_wanted, self._num_affordable(num_unfinished)))
        return (1.0, 0) if num_steps == 1 else (self._progress + left / num_steps, num_steps - 1)

    def _num_affordable(self, num_unfinished: int) -> int:
        """Full-size steps until the end of the overtime."""
        seconds = self._seconds_left() + self._warmdown.overtime_seconds - self._tail_seconds
        return int(seconds / self.step_seconds - self._unfinished_cost(num_unfinished))

    def _num_fitting(self, num_unfinished: int) -> int:
        """Full-size steps that fit into the time left, at least one: the schedule always reaches its end.

        Time is reserved for the last one to be as slow as the slowest of the latest.
        """
        step_seconds = self.step_seconds
        reserve = max(seconds / steps for seconds, steps in self._without_stalls()) - step_seconds + self._tail_seconds
        return max(1, int((self._seconds_left() - reserve) / step_seconds - self._unfinished_cost(num_unfinished)))

    def _unfinished_cost(self, num_unfinished: int) -> float:
        """Cost of the steps in flight, in full-size steps."""
        return sum(islice(reversed(self._unfinished), num_unfinished))

    def _without_stalls(self) -> list[tuple[float, float]]:
        """The latest (seconds, cost) without cold starts and suspensions. A slowdown that lasts becomes the median."""
        longest = self.STALL * median_low(self._full_step_seconds)
        return [(seconds, steps) for seconds, steps in self._recent if seconds <= longest * steps]

    @property
    def _full_step_seconds(self) -> list[float]:
        """Seconds of a full-size step by each of the latest measurements."""
        return [seconds / steps for seconds, steps in self._recent]

    @property
    def _is_warm(self) -> bool:
        """Whether the window is full, so that no cold start is taken for a load."""
        return len(self._recent) == self.WINDOW

    @property
    def _tail_seconds(self) -> float:
        """How much longer the last step may take than the slowest one that is no stall, where stalls come again and
        again, as beside other programs: the second longest of the latest steps counts."""
        if not self._is_warm:
            return 0.0
        slowest = max(seconds / steps for seconds, steps in self._without_stalls())
        return max(0.0, sorted(self._full_step_seconds)[-2] - slowest)

    def _must_end(self) -> bool:
        """Whether no second step would fit, if steps stayed as slow as the latest two or more, which are no stalls."""
        if not self._is_warm:
            return False
        each = self._full_step_seconds
        longest = self.STALL * median_low(each)
        slow = list(takewhile(lambda seconds: seconds > longest, reversed(each)))
        return len(slow) > 1 and self._seconds_left() + self._warmdown.overtime_seconds < 2 * max(slow)

    def _forget_other_speeds(self) -> None:
        """Keep the latest measurements alone where the machine has become far slower for several steps, or faster."""
        each, kept = self._full_step_seconds, 0
        if self._is_warm and min(each[-self.SLOW_STEPS :]) > self.STALL * median_low(each[: -self.SLOW_STEPS]):
            kept = self.SLOW_STEPS
        elif len(each) >= 2 * self.FAST_STEPS:
            is_fast = max(each[-self.FAST_STEPS :]) < median_low(each[: -self.FAST_STEPS]) / self.FAST
            kept = self.FAST_STEPS if is_fast else 0
        if kept:
            self._recent = deque(list(self._recent)[-kept:], maxlen=self.WINDOW)
