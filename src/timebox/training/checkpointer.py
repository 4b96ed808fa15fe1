"""Checkpoints in the background, as often as their cost allows."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from timebox.clock import Deadline
from timebox.runtime.faults import OutOfMemoryError, convert_memory_errors
from timebox.training.state import Snapshot

# A checkpoint at most every so many seconds, and so many times its own cost.
INTERVAL_SECONDS, INTERVAL_COSTS = 5.0, 50.0
# None is begun with less time left than so many times its cost; the first, whose cost is expected only, with more left.
MIN_COSTS_LEFT, MIN_COSTS_LEFT_FIRST = 2.0, 10.0
# After a failure; together with a last checkpoint less than a stopped command may take.
WAIT_ON_FAILURE_SECONDS = 1.5


class AsyncCheckpointer:
    """Decides when a training is kept, and keeps it, while the training goes on.

    A write that fails stops nothing: it is told once, and tried again when the next is due.

    Args:
        write: puts a snapshot on disk; may raise OSError. Called in a thread.
        seconds_left: reads the time until training must have ended; infinite where no clock is read.
        tell: takes a sentence on the first failure.
        expected_seconds: what writing one is expected to take, until it has been measured.
    """

    def __init__(
        self,
        write: Callable[[Snapshot], None],
        deadline: Deadline,
        seconds_left: Callable[[], float],
        notify: Callable[[str], None],
        expected_seconds: float = 0.0,
    ) -> None:
        self._expected_seconds = expected_seconds
        self._write, self._notify = write, notify
        self._deadline, self._seconds_left = deadline, seconds_left
        self._costs: deque[float] = deque(maxlen=3)
        self._begun_at: float | None = None
        self._thread: threading.Thread | None = None
        self._written_step = -1
        self._failure = ""
        self._told = False

    @property
    def cost_seconds(self) -> float:
        """What writing one takes: the fastest of the last three, as one may fall into a stall."""
        return min(self._costs, default=self._expected_seconds)

    @property
    def has_failed(self) -> bool:
        """Whether a checkpoint could not be written."""
        return bool(self._failure)

    def is_due(self) -> bool:
        """Whether it is time to keep the present state."""
        self._notify_failure()
        if self._thread and self._thread.is_alive():
            return False
        cost = self.cost_seconds
        if self._seconds_left() <= (MIN_COSTS_LEFT if self._costs else MIN_COSTS_LEFT_FIRST) * cost:
            return False
        if self._begun_at is None:
            return True
        # A single measurement is not trusted to be the rule.
        interval = max(INTERVAL_SECONDS, INTERVAL_COSTS * cost if len(self._costs) > 1 else 0.0)
        since = self._deadline.elapsed() - self._begun_at
        return since >= interval - cost

    def save(self, snapshot: Snapshot) -> None:
        """Begin to write a snapshot."""
        self._begun_at = self._deadline.elapsed()
        arguments = (snapshot, snapshot.aside())
        self._thread = threading.Thread(target=self._keep, args=arguments, name="timebox-checkpoint", daemon=True)
        self._thread.start()

    def save_last(self, snapshot: Snapshot, patience_seconds: float) -> None:
        """Write a snapshot that is newer than what is on disk, unless that would take too long."""
        if not self.wait(patience_seconds / 2) or snapshot.step <= self._written_step:
            return
        if self.cost_seconds < patience_seconds / 2:
            self.save(snapshot)
            self.wait(patience_seconds / 2)

    def wait(self, seconds: float) -> bool:
        """Wait for a write in progress; whether it has ended."""
        if self._thread:
            self._thread.join(min(max(seconds, 0.0), threading.TIMEOUT_MAX))
        self._notify_failure()
        return not (self._thread and self._thread.is_alive())

    @contextmanager
    def wait_on_failure(self) -> Iterator[None]:
        """Where what is done inside fails, a write in progress is waited for a while: whoever looks at the disk next
        finds it whole."""
        try:
            yield
        except BaseException:
            self.wait(WAIT_ON_FAILURE_SECONDS)
            raise

    def _keep(self, snapshot: Snapshot, aside: AbstractContextManager[object]) -> None:
        before = self._deadline.elapsed()
        try:
            with convert_memory_errors(), aside:
                if not snapshot.is_finite():
                    return
                self._write(snapshot)
        except OutOfMemoryError:
            self._failure = "memory ran out"
        except OSError as error:
            self._failure = error.strerror or str(error)
        except Exception as error:  # whatever it is, it must not end the thread unseen
            self._failure = f"{type(error).__name__}: {error}"
        else:
            self._written_step = snapshot.step
            self._costs.append(self._deadline.elapsed() - before)

    def _notify_failure(self) -> None:
        if self._failure and not self._told:
            self._told = True
            self._notify(f"the checkpoint could not be written ({self._failure}); the training goes on in memory")


class NullCheckpointer(AsyncCheckpointer):
    """Keeps nothing: for a process whose leader keeps the training."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__(lambda snapshot: None, deadline, lambda: 0.0, lambda text: None)

    def is_due(self) -> bool:
        return False

    def save_last(self, snapshot: Snapshot, patience_seconds: float) -> None:
        """Nothing to do."""
