"""Follows the load of the machine with the number of torch's threads, while a training runs."""

import time
from collections import deque
from collections.abc import Callable
from statistics import fmean, median

# Steps of a trial: the first one makes kernels for another number of threads and does not count.
TRIAL_STEPS = 3
# A trial ends at once where its first step, or a later one, takes this many times as long as the steps before it.
MAX_FIRST_SLOWDOWN, MAX_SLOWDOWN = 3.0, 1.5
# Steps before the first trial and after one that changed the number; each trial that does not doubles the wait.
MIN_WAIT, MAX_WAIT = 8, 512
# All counted steps of a trial of more threads must be faster than the latest steps by this factor.
MIN_SPEEDUP = 1.1
# Share of its threads' time that the process must get for the machine to count as free.
FREE_SHARE = 0.9
# A load has come where so many steps in a row each take this many times as long as the steps before, and the machine is
# not free: a trial follows at once. With more than one thread a single operation may take seconds then, because threads
# wait for each other many times in it: one such step is enough, if the machine is still not free in the trial.
ALARM_STEPS, ALARM_SLOWDOWN = 2, 1.5
SINGLE_SLOWDOWN = 3.0
# More threads are tried with more steps than this to come, fewer threads, which a load calls for, with more than these.
LAST_STEPS, LAST_STEPS_UNDER_LOAD = 16, 4


class ThreadTuner:
    """Decides the number of threads of each step, by the time that the steps before took.

    Planning measures for some tenths of a second. The load of another program may have been there just then, or it may
    come or go later. So where other programs keep the process from its processors, a few steps are run with half the
    threads, as threads wait for each other after every operation. Where they do not, and there may be more threads, a
    few steps are run with twice as many. The number changes where all of them are faster. With all threads on a free
    machine no trial is made.

    Args:
        threads: number to begin with.
        most: largest number there may be.
        notify: receives a line for each change.
        clock: processor time of the process, all its threads together, in seconds.
    """

    def __init__(
        self,
        threads: int,
        most: int,
        notify: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.threads, self._most = threads, most
        self._notify, self._clock = notify, clock
        self._processor_time, self._work = clock(), 0.0
        # Seconds of the latest steps, all of the same work, and the share of the processors that they got.
        self._seconds: deque[float] = deque(maxlen=MIN_WAIT)
        self._shares: deque[float] = deque(maxlen=MIN_WAIT)
        self._trial: list[float] | None = None
        self._trial_shares: list[float] = []
        self._tried = threads
        self._wait = self._next_wait = MIN_WAIT

    def next(self, steps_left: int) -> int:
        """The number of threads for the next step, with about ``steps_left`` steps to come."""
        if self._trial is None and self._wait <= 0 and (candidate := self._candidate(steps_left)):
            self._trial, self._trial_shares, self._tried = [], [], candidate
        return self.threads if self._trial is None else self._tried

    def record(self, seconds: float, work: float) -> None:
        """Count a step that took ``seconds`` for ``work``, such as the share of a full-size step; above 0 both."""
        before, self._processor_time = self._processor_time, self._clock()
        if work != self._work:  # as images grow, steps cannot be compared
            self._work = work
            self._forget_all_but(0)
            if self._trial is not None:
                self._trial, self._wait = None, MIN_WAIT
                return
        used = (self._processor_time - before) / seconds
        if self._trial is not None:
            self._trial.append(seconds)
            self._trial_shares.append(used / self._tried)
            self._judge(self._trial)
            return
        self._wait -= 1
        self._seconds.append(seconds)
        self._shares.append(used / self.threads)
        if num_slow := self._num_steps_under_a_new_load():
            self._wait = 0
            self._forget_all_but(num_slow)

    @property
    def _is_free(self) -> bool:
        """Whether the latest steps got their processors for themselves."""
        return median(self._shares) >= FREE_SHARE

    def _num_steps_under_a_new_load(self) -> int:
        """The number of latest steps that were slowed down by a load that has just come; 0 for none."""
        if self.threads == 1 or len(self._seconds) < 2 * ALARM_STEPS:
            return 0
        each, shares = list(self._seconds), list(self._shares)
        for num_steps, slowdown in ((1, SINGLE_SLOWDOWN), (ALARM_STEPS, ALARM_SLOWDOWN)):
            usual = median(each[:-num_steps])
            if min(each[-num_steps:]) > slowdown * usual and max(shares[-num_steps:]) < FREE_SHARE:
                return num_steps
        return 0

    def _candidate(self, steps_left: int) -> int | None:
        """The number of threads to try now, None for none."""
        if not self._seconds:
            return None
        if self._is_free:
            return min(2 * self.threads, self._most) if self.threads < self._most and steps_left > LAST_STEPS else None
        return self.threads // 2 if self.threads > 1 and steps_left > LAST_STEPS_UNDER_LOAD else None

    def _judge(self, trial: list[float]) -> None:
        """End a trial that is over, or that costs too much time to be gone on with.

        Beside other programs some steps take many times as long as most, so means are compared there, and fewer
        threads, whose steps differ less, need not be faster.
        """
        if self._tried < self.threads:
            usual, needed = fmean(self._seconds), 1.0
        else:
            usual, needed = median(self._seconds), MIN_SPEEDUP
        is_slow = trial[0] > MAX_FIRST_SLOWDOWN * usual or max(trial[1:], default=0.0) > MAX_SLOWDOWN * usual
        if len(trial) < TRIAL_STEPS and not is_slow:
            return
        speedup = 0.0
        # A single slow step may have been a stall of the whole machine.
        was_stall = len(self._seconds) == 1 and median(self._trial_shares) >= FREE_SHARE
        if not is_slow and not was_stall:
            speedup = usual / (fmean(trial[1:]) if self._tried < self.threads else max(trial[1:]))
        self._trial = None
        self._next_wait = MIN_WAIT if speedup >= needed else min(MAX_WAIT, 2 * self._next_wait)
        self._wait = self._next_wait
        if speedup >= needed:
            noun = "thread" if self._tried == 1 else "threads"
            self._notify(f"{self._tried} {noun} in place of {self.threads}: {speedup:.1f}x as fast")
            self.threads = self._tried
            self._forget_all_but(0)

    def _forget_all_but(self, num_steps: int) -> None:
        for values in (self._seconds, self._shares):
            kept = list(values)[len(values) - num_steps :]
            values.clear()
            values.extend(kept)
