"""Checkpoints written in a background thread, as often as their cost allows, and probes of the disk between them."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from math import inf

from timebox.clock import Deadline
from timebox.runtime.faults import OutOfMemoryError, convert_memory_errors
from timebox.runtime.write_speed import WriteTime
from timebox.training.state import Snapshot

# Interval between the starts of two checkpoints, in seconds and in multiples of the cost of one; the longer counts.
INTERVAL_SECONDS, INTERVAL_COSTS = 5.0, 50.0
# Least time left when a checkpoint is started, in multiples of its cost. The cost of the first is only an estimate.
MIN_COSTS_LEFT, MIN_COSTS_LEFT_FIRST = 2.0, 10.0
# Pause before a probe, in multiples of the latest write in the background and in seconds: a hundredth of the time where
# the disk is quick, and often enough to notice in time that it has become slow.
PROBE_COSTS, MIN_PROBE_PAUSE, MAX_PROBE_PAUSE = 100.0, 1.0, 3.0
# Longest wait for a write after an error or Ctrl-C. With the last checkpoint's time it must stay below the time that
# a stopped command may take to exit (cli.exit_status.MAX_STOP_SECONDS).
WAIT_ON_FAILURE_SECONDS = 1.5


class AsyncCheckpointer:
    """Writes checkpoints in a background thread, at most every 5 s or 50 times the cost of one.

    A failed write does not stop the training: the user is notified once, and the next checkpoint is tried as usual.

    Args:
        write: writes a snapshot to disk; may raise OSError. Called in a thread.
        seconds_left: reads the time until training must have ended; infinite where no clock is read.
        notify: receives one line on the first failure.
        expected_seconds: cost of one checkpoint, until one has been measured.
        probe: writes a small file to measure the disk; may raise OSError. Called in a thread.
    """

    def __init__(
        self,
        write: Callable[[Snapshot], None],
        deadline: Deadline,
        seconds_left: Callable[[], float],
        notify: Callable[[str], None],
        expected_seconds: float = 0.0,
        probe: Callable[[], None] = lambda: None,
    ) -> None:
        self._expected_seconds, self._probe = expected_seconds, probe
        self._write_time = WriteTime(deadline.elapsed, expected_seconds)
        self._idle_since, self._last_seconds = deadline.elapsed(), 0.0
        self._write, self._notify = write, notify
        self._deadline, self._seconds_left = deadline, seconds_left
        self._costs: deque[float] = deque(maxlen=3)
        self._started_at: float | None = None
        self._thread: threading.Thread | None = None
        self._written_step = -1
        self._failure = ""
        self._has_notified = False

    @property
    def cost_seconds(self) -> float:
        """Seconds to write a checkpoint: the fastest of the last three, as any one may meet a stall of the disk."""
        return min(self._costs, default=self._expected_seconds)

    @property
    def recent_seconds(self) -> float:
        """Seconds to write a checkpoint as the disk is now: a slow one counts at once, and for some time."""
        return self._write_time.seconds

    @property
    def has_failed(self) -> bool:
        """Whether a write has failed."""
        return bool(self._failure)

    def is_due(self) -> bool:
        """Whether to write a checkpoint now: none is being written, enough time has passed, and enough is left."""
        self._notify_failure()
        if self._is_writing:
            return False
        cost = self.cost_seconds
        min_left = MIN_COSTS_LEFT * self.recent_seconds if self._costs else MIN_COSTS_LEFT_FIRST * cost
        if self._seconds_left() <= min_left:
            return False
        if self._started_at is None:
            return True
        # A single measurement may have met a stall of the disk.
        interval = max(INTERVAL_SECONDS, INTERVAL_COSTS * cost if len(self._costs) > 1 else 0.0)
        return self._deadline.elapsed() - self._started_at >= interval - cost

    def save(self, snapshot: Snapshot) -> None:
        """Start to write a snapshot in the background."""
        self._started_at = self._deadline.elapsed()
        copy_stream = snapshot.copy_stream()
        self._start(lambda: self._save(snapshot, copy_stream))

    def probe_if_due(self) -> None:
        """Measure the disk in the background, where a clock is read and nothing has been written for a while.

        Not shortly before the end: a process does not exit before its writes are done.
        """
        min_left = max(MIN_COSTS_LEFT * self._last_seconds, MIN_PROBE_PAUSE)
        if self._is_writing or not min_left < self._seconds_left() < inf:
            return
        pause = min(max(PROBE_COSTS * self._last_seconds, MIN_PROBE_PAUSE), MAX_PROBE_PAUSE)
        if self._deadline.elapsed() - self._idle_since >= pause:
            self._start(self._probe)

    def save_last(self, snapshot: Snapshot, limit_seconds: float) -> None:
        """Write a snapshot and wait for it, unless a newer one is on disk or it would exceed the time limit."""
        if not self.wait(limit_seconds / 2) or snapshot.step <= self._written_step:
            return
        if self.cost_seconds < limit_seconds / 2:
            self.save(snapshot)
            self.wait(limit_seconds / 2)

    def wait(self, limit_seconds: float) -> bool:
        """Wait for a write in progress. Returns whether no write is in progress any more."""
        if self._thread:
            self._thread.join(min(max(limit_seconds, 0.0), threading.TIMEOUT_MAX))
        self._notify_failure()
        return not self._is_writing

    @contextmanager
    def wait_on_failure(self) -> Iterator[None]:
        """Where the body raises, wait for a write in progress, so that the checkpoint on disk is the newest."""
        try:
            yield
        except BaseException:
            self.wait(WAIT_ON_FAILURE_SECONDS)
            raise

    @property
    def _is_writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self, write: Callable[[], None]) -> None:
        """Start a write in the background."""

        def timed() -> None:
            start = self._deadline.elapsed()
            with suppress(OSError):  # of a probe; a disk that fails is reported where a file of the run is written
                write()
            self._idle_since = self._deadline.elapsed()
            self._last_seconds = self._idle_since - start

        self._thread = threading.Thread(target=timed, name="timebox-checkpoint", daemon=True)
        self._thread.start()

    def _save(self, snapshot: Snapshot, copy_stream: AbstractContextManager[object]) -> None:
        start = self._deadline.elapsed()
        try:
            with convert_memory_errors(), copy_stream:
                if not snapshot.is_finite():
                    return
                with self._write_time.measure():
                    self._write(snapshot)
        except OutOfMemoryError:
            self._failure = "memory ran out"
        except OSError as error:
            self._failure = error.strerror or str(error)
        except Exception as error:  # an exception in a thread would otherwise go unnoticed
            self._failure = f"{type(error).__name__}: {error}"
        else:
            self._written_step = snapshot.step
            self._costs.append(self._deadline.elapsed() - start)

    def _notify_failure(self) -> None:
        if self._failure and not self._has_notified:
            self._has_notified = True
            self._notify(f"the checkpoint could not be written ({self._failure}); the training goes on in memory")
