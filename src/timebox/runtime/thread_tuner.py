"""Follows the load of the machine with the number of torch's threads, while a training runs."""

import os
from collections import deque
from collections.abc import Callable
from statistics import median

# Steps of a trial: the first one makes kernels for another number of threads and does not count.
TRIAL_STEPS = 3
# Steps before the first trial and after one that changed the number; each trial that does not doubles the wait.
MIN_WAIT, MAX_WAIT = 8, 512
# All counted steps of a trial must be faster than the latest steps by this factor.
MIN_SPEEDUP = 1.1
# Share of its threads' time that the process must get for the machine to count as free.
FREE_SHARE = 0.9
# A load has come where so many steps in a row each take this many times as long as the steps before, and the machine is
# not free: a trial follows at once.
ALARM_STEPS, ALARM_SLOWDOWN = 2, 1.5
# Fewer steps than this before the end of a training, no trial begins.
LAST_STEPS = 16


def process_seconds() -> float:
    """Processor time of all threads of this process so far."""
    times = os.times()
    return times.user + times.system


class ThreadTuner:
    """Decides the number of threads of each step, by the time that the steps before took.

    Planning measures for some tenths of a second. What it found may have been another program's load, and a load may
    come or go later. So where other programs keep the process from its processors, a few steps are run with half the
    threads, as threads wait for each other after every operation; and with fewer threads than there may be, a few steps
    are run with twice as many. Where all of them are faster, the number changes. On a machine that is free no trial is
    made.

    Args:
        threads: number to begin with.
        most: largest number there may be.
        notify: receives a line for each change.
        clock: processor time of the process in seconds.
    """

    def __init__(
        self,
        threads: int,
        most: int,
        notify: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = process_seconds,
    ) -> None:
        self.threads, self._most = threads, most
        self._notify, self._clock = notify, clock
        self._processor_time = clock()
        # Seconds for each unit of work, and share of the processors, of the latest steps.
        self._seconds: deque[float] = deque(maxlen=MIN_WAIT)
        self._shares: deque[float] = deque(maxlen=MIN_WAIT)
        self._trial: list[float] | None = None
        self._tried = threads
        self._wait = self._next_wait = MIN_WAIT

    def next(self, steps_left: int) -> int:
        """The number of threads for the next step, with about ``steps_left`` steps to come."""
        if self._trial is None and self._wait <= 0 and steps_left > LAST_STEPS and (candidate := self._candidate()):
            self._trial, self._tried = [], candidate
        return self.threads if self._trial is None else self._tried

    def record(self, seconds: float, work: float) -> None:
        """Count a step that took ``seconds`` for ``work``, such as the share of a full-size step; above 0 both."""
        before, self._processor_time = self._processor_time, self._clock()
        if self._trial is not None:
            self._trial.append(seconds / work)
            if len(self._trial) == TRIAL_STEPS:
                self._end_trial(self._trial[1:])
            return
        self._wait -= 1
        self._seconds.append(seconds / work)
        self._shares.append((self._processor_time - before) / (seconds * self.threads))
        if self._has_load_come():
            self._wait = 0
            self._forget_all_but(ALARM_STEPS)

    def _has_load_come(self) -> bool:
        if self.threads == 1 or len(self._seconds) < 2 * ALARM_STEPS:
            return False
        *before, first, second = self._seconds
        slow = ALARM_SLOWDOWN * median(before)
        return min(first, second) > slow and max(list(self._shares)[-ALARM_STEPS:]) < FREE_SHARE

    def _forget_all_but(self, num_steps: int) -> None:
        for values in (self._seconds, self._shares):
            kept = list(values)[len(values) - num_steps :]
            values.clear()
            values.extend(kept)

    def _candidate(self) -> int | None:
        """The number of threads to try now, None for none."""
        if len(self._seconds) < ALARM_STEPS:
            return None
        candidates = [min(2 * self.threads, self._most)] if self.threads < self._most else []
        if self.threads > 1 and median(self._shares) < FREE_SHARE:
            candidates.append(self.threads // 2)
        # In turn, where there are two.
        return next((number for number in candidates if number != self._tried), candidates[0] if candidates else None)

    def _end_trial(self, seconds: list[float]) -> None:
        speedup = median(self._seconds) / max(seconds)
        self._trial = None
        self._next_wait = MIN_WAIT if speedup >= MIN_SPEEDUP else min(MAX_WAIT, 2 * self._next_wait)
        self._wait = self._next_wait
        if speedup >= MIN_SPEEDUP:
            self._notify(f"{self._tried} threads in place of {self.threads}: {speedup:.1f}x as fast")
            self.threads = self._tried
            self._forget_all_but(0)
