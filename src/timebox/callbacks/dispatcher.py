"""Delivers the events of a training to callbacks, in one background thread that the training never waits for."""

import threading
import traceback
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from timebox.callbacks.events import METHODS, EndInfo, Info, PlanInfo, StepInfo
from timebox.clock import Deadline
from timebox.errors import one_line, without_passwords
from timebox.progress import Reporter

# Events that wait at most: on_step events are dropped first, the oldest of them.
MAX_WAITING = 1000
# Exceptions after which a callback gets no further events.
MAX_EXCEPTIONS = 3
# Longest wait for callbacks once the run is complete, in seconds: with a deadline, of which half of the time left is
# used at most, and without one.
MAX_WAIT_SECONDS, MAX_WAIT_WITHOUT_DEADLINE = 5.0, 60.0
# After an error or Ctrl-C. With the last checkpoint it must stay below the time that a stopped command may take to exit
# (cli.signals.MAX_STOP_SECONDS).
MAX_WAIT_WHEN_STOPPED = 0.3
MAX_REASON_CHARACTERS = 300


class _Callback:
    """A callback, the methods that it still gets, and the number of exceptions that it has raised."""

    def __init__(self, callback: object) -> None:
        self.name = type(callback).__name__
        self.methods = {name: getattr(callback, name) for name in METHODS.values() if hasattr(callback, name)}
        self.num_exceptions = 0


class CallbackDispatcher:
    """A queue of events, and the thread that delivers them: to each callback in turn, in the order of the events.

    Nothing here raises what a callback raises: :meth:`failures` and :meth:`messages` say it in words.

    Args:
        callbacks: checked by :func:`timebox.callbacks.loading.load_callbacks`.
    Attributes:
        plan, end: the first and the last event of the run, once they were submitted.
    """

    def __init__(self, callbacks: Iterable[object] = ()) -> None:
        self.plan: PlanInfo | None = None
        self.end: EndInfo | None = None
        self._callbacks = [_Callback(one) for one in callbacks]
        self._handled = {name for one in self._callbacks for name in one.methods}
        self._waiting: deque[Info] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._failures: deque[str] = deque()
        self._num_dropped: Counter[str] = Counter()
        self._in_progress = ""
        self._thread = threading.Thread(target=self._deliver_all, name="timebox-callbacks", daemon=True)

    def start(self) -> None:
        """Start the thread, where there are callbacks."""
        if self._callbacks:
            self._thread.start()

    def submit(self, info: Info) -> None:
        """Append an event, from any thread; this waits for no callback. After :meth:`close` it is ignored."""
        if isinstance(info, PlanInfo):
            self.plan = info
        if isinstance(info, EndInfo):
            self.end = info
        if METHODS[type(info)] not in self._handled:
            return
        with self._changed:
            if self._is_closed:
                return
            if len(self._waiting) >= MAX_WAITING:
                self._drop_one()
            self._waiting.append(info)
            self._changed.notify()

    def failures(self) -> list[str]:
        """A line for each exception that a callback has raised since the last call."""
        return [self._failures.popleft() for _ in range(len(self._failures))]

    def messages(self) -> list[str]:
        """The same, and a line for the events dropped since the last call."""
        with self._changed:
            dropped, self._num_dropped = self._num_dropped, Counter()
        lines = [
            f"{count:,} {method} {'event was' if count == 1 else 'events were'} dropped: the callbacks are slower than "
            "the training"
            for method, count in dropped.items()
        ]
        return [*self.failures(), *lines]

    def close(self, max_seconds: float) -> str | None:
        """Wait until all events are delivered, but not longer than this; a line for callbacks that are left behind.

        After half of the time on_step events that still wait are dropped, so that the last event has a chance. What is
        left behind is delivered later, as long as the process lives. Ctrl-C ends the wait: the run is complete.
        """
        if not self._thread.is_alive():
            return None
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        with suppress(KeyboardInterrupt):
            self._thread.join(max_seconds / 2)
            if self._thread.is_alive():
                self._drop_waiting_steps()
                self._thread.join(max_seconds / 2)
        if not self._thread.is_alive():
            return None
        with self._changed:
            num_waiting, in_progress = len(self._waiting), self._in_progress or "a callback"
        others = f", and {num_waiting:,} more events wait" if num_waiting else ""
        return f"{in_progress} has not returned in time{others}: it is left behind, and the run is complete without it"

    def _drop_one(self) -> None:
        """Drop the oldest on_step event that waits; where there is none, the oldest event."""
        place = next((i for i, info in enumerate(self._waiting) if isinstance(info, StepInfo)), 0)
        self._num_dropped[METHODS[type(self._waiting[place])]] += 1
        del self._waiting[place]

    def _drop_waiting_steps(self) -> None:
        with self._changed:
            kept = [info for info in self._waiting if not isinstance(info, StepInfo)]
            if num_dropped := len(self._waiting) - len(kept):
                self._num_dropped[METHODS[StepInfo]] += num_dropped
            self._waiting = deque(kept)

    def _deliver_all(self) -> None:
        """The thread's work, until the dispatcher is closed and no event waits."""
        while (info := self._next()) is not None:
            for callback in self._callbacks:
                self._deliver(callback, info)

    def _next(self) -> Info | None:
        """Wait for the next event; None once there will be no more."""
        with self._changed:
            self._in_progress = ""
            while not self._waiting:
                if self._is_closed:
                    return None
                self._changed.wait()
            return self._waiting.popleft()

    def _deliver(self, callback: _Callback, info: Info) -> None:
        method = METHODS[type(info)]
        if method not in callback.methods:
            return
        self._in_progress = f"{method} of the callback {callback.name}"
        try:
            callback.methods[method](info)
        except BaseException as error:  # in a thread a SystemExit would end the thread alone, without a word
            step = getattr(info, "step", None)
            where = self._in_progress if step is None else f"{self._in_progress}, at step {step:,},"
            callback.num_exceptions += 1
            is_last = callback.num_exceptions == MAX_EXCEPTIONS
            if is_last:
                callback.methods = {}
            last = f"; after {MAX_EXCEPTIONS} exceptions it gets no further events" if is_last else ""
            self._failures.append(f"{where} raised {_reason(error)}{last}")


def _reason(error: BaseException) -> str:
    """An exception in a line, with the place where it was raised."""
    text = one_line(without_passwords(traceback.format_exception_only(error)[-1].strip()))
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if len(frames) > 1 else ""
    return text[:MAX_REASON_CHARACTERS] + place


NO_CALLBACKS = CallbackDispatcher()


@contextmanager
def dispatch_to(callbacks: Iterable[object], deadline: Deadline, reporter: Reporter) -> Iterator[CallbackDispatcher]:
    """A dispatcher for one training, which submits an EndInfo last. After an error inside, one is submitted for it.

    At the end it waits for the callbacks as long as the deadline allows, see :func:`max_wait`.
    """
    dispatcher = CallbackDispatcher(callbacks)
    dispatcher.start()
    try:
        yield dispatcher
    except BaseException as error:
        if dispatcher.plan and not dispatcher.end:
            reason = without_passwords(f"{type(error).__name__}: {error}".removesuffix(": "))
            dispatcher.submit(EndInfo(dispatcher.plan.run_directory, error=reason))
        raise
    finally:
        is_finished = dispatcher.end is not None and dispatcher.end.is_finished
        line = dispatcher.close(max_wait(deadline, is_finished))
        for text in (*dispatcher.messages(), *([line] if line else [])):
            reporter.note(text)


def max_wait(deadline: Deadline, is_finished: bool) -> float:
    """Seconds to wait for callbacks at the end, 0 or more: never longer than half of the time before the deadline."""
    if not is_finished:
        return MAX_WAIT_WHEN_STOPPED
    if deadline.budget_seconds is None:
        return MAX_WAIT_WITHOUT_DEADLINE
    return min(MAX_WAIT_SECONDS, max(deadline.remaining(), 0.0) / 2)
