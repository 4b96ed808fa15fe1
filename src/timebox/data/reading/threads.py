"""Reads in daemon threads, which can be abandoned: a read that never returns keeps no process from ending."""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from math import inf
from operator import itemgetter
from queue import Empty, SimpleQueue
from time import monotonic
from typing import NamedTuple, Protocol, TypeVar

from timebox.clock import format_duration
from timebox.data.reading.options import ProgressNotifier, ReadOptions
from timebox.data.reading.time_limit import ReadingTime, Stage
from timebox.errors import DataError
from timebox.machine import available_threads

R = TypeVar("R")
T = TypeVar("T")


class Named(Protocol):
    """Anything with a name, such as an image file."""

    @property
    def name(self) -> str: ...


I = TypeVar("I", bound=Named)  # noqa: E741

_POLL_SECONDS = 0.1
# Why an image is unreadable whose file could not be read in time.
NOT_IN_TIME = "not read in time: the read did not return"
NO_THREAD = (
    "no thread can be started to read the images with: memory, or the number of processes that this user may have, is "
    "used up (`ulimit -a` shows the limits)"
)
_MAX_IMAGES_PER_TASK, _TASKS_PER_THREAD = 64, 8
# A file that takes longer is named where the time is over.
_SLOW_SECONDS = 1.0
# Share of the time left that the last pass may take, where it may end early: splitting and hashing follow.
_LAST_SHARE = 0.8
# To measure the speed of decoding, so many images are decoded, for so long at most.
_MAX_SAMPLE, _SAMPLE_SECONDS = 512, 0.4
# Threads that are at work when a pass ends early have so long to finish, together.
_JOIN_SECONDS = 0.3
# After Ctrl-C a reading thread has so long to remove its temporary files.
_STOP_SECONDS = 2.0


class DaemonPool:
    """Runs a function on items in as many daemon threads as there are processors.

    Attributes:
        lock: held while a result is stored, if it is stored at all: only while ``is_stopped`` is false.
        is_stopped: whether the pass has ended; no new item is begun then.
        working_on: the item that each thread is at, and since when on the clock of time.monotonic.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_stopped = False
        self.working_on: dict[int, tuple[int, float]] = {}

    def run(self, task: Callable[[int], None], chunks: Iterable[range], advance: Callable[[int], bool]) -> int:
        """Run ``task`` on the items of chunks; returns the number of items done.

        Args:
            advance: called in this thread with the number of items done, after each chunk and several times a second;
                false ends the pass.
        Raises the first exception of ``task``, and those of ``advance``.
        """
        remaining, chunk_lock = iter(chunks), threading.Lock()
        results: SimpleQueue[int | BaseException | None] = SimpleQueue()

        def work() -> None:
            thread = threading.get_ident()
            try:
                while not self.is_stopped:
                    with chunk_lock:
                        chunk = next(remaining, None)
                    if chunk is None:
                        break
                    for item in chunk:
                        if self.is_stopped:
                            break
                        self.working_on[thread] = item, monotonic()
                        task(item)
                    self.working_on.pop(thread, None)
                    results.put(len(chunk))
            except BaseException as error:
                results.put(error)
            results.put(None)

        threads: list[threading.Thread] = []
        for _ in range(available_threads()):
            thread = threading.Thread(target=work, name="timebox-read", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not threads:
                    raise DataError(NO_THREAD) from error
                break
            threads.append(thread)
        num_done, num_running = 0, len(threads)
        try:
            while num_running:
                try:
                    result = results.get(timeout=_POLL_SECONDS)
                except Empty:
                    result = 0
                if isinstance(result, BaseException):
                    raise result
                num_running -= result is None
                num_done += result or 0
                if num_running and not advance(num_done):
                    break
        finally:
            with self.lock:
                self.is_stopped = True
            for thread in threads:
                thread.join(_JOIN_SECONDS / len(threads))
        return num_done

    def slowest(self) -> tuple[int, float] | None:
        """The item that a thread has been at for longest, and for how many seconds; None where all threads are idle."""
        items = sorted(self.working_on.copy().values(), key=itemgetter(1))
        return (items[0][0], monotonic() - items[0][1]) if items else None


class Done(NamedTuple):
    """The outcome of a pass over images: the reason of each failure by position, and how many of the first images were
    read; all, unless the pass ended early."""

    failures: dict[int, str]
    num_images: int


def for_each(
    task: Callable[[I], T],
    store: Callable[[int, T], None],
    images: Sequence[I],
    verb: str,
    options: ReadOptions,
    later: Callable[[], float] | None = None,
) -> Done:
    """Run a task on images in threads, as Pillow releases the GIL, and store its results by the position of the image.

    Args:
        verb: for messages: "read".
        later: measures the seconds of the passes to come. None for the last pass: where a part of the images may be
            read, it ends when the time is over.
    Raises BudgetError where the time to read cannot be enough.
    """
    failures: dict[int, str] = {}
    notify, pool, may_end = (
        ProgressNotifier(options.notify),
        DaemonPool(),
        later is None and options.time.allow_partial,
    )
    is_done = bytearray(len(images))

    def run(position: int) -> None:
        try:
            result = task(images[position])
        except DataError as error:
            with pool.lock:
                if not pool.is_stopped:
                    failures[position], is_done[position] = str(error), 1
        else:
            with pool.lock:
                if not pool.is_stopped:
                    store(position, result)
                    is_done[position] = 1

    def describe(done: int) -> str:
        text = f"{verb} {done:,} of {len(images):,} images"
        slowest = pool.slowest()
        if slowest is None or slowest[1] < _SLOW_SECONDS:
            return text
        return f"{text}, and has waited {format_duration(slowest[1])} for {images[slowest[0]].name}"

    stage = Stage(options.time, describe, len(images), later or (lambda: 0.0), _LAST_SHARE if may_end else None)

    def advance(done: int) -> bool:
        notify(f"{verb} {done:,} of {len(images):,} images")
        return stage.advance(done)

    size = max(1, min(_MAX_IMAGES_PER_TASK, len(images) // (_TASKS_PER_THREAD * available_threads())))
    size = 1 if may_end else size
    pool.run(run, (range(start, min(start + size, len(images))) for start in range(0, len(images), size)), advance)
    waiting = {item for item, _ in pool.working_on.copy().values()}
    for position in waiting:  # a read that does not return
        if not is_done[position]:
            failures[position], is_done[position] = NOT_IN_TIME, 1
    first_missing = is_done.find(0)
    return Done(failures, len(images) if first_missing < 0 else first_missing)


def seconds_per_image(task: Callable[[I], object], images: Sequence[I]) -> float:
    """Seconds of a task for each image, in threads, from some of the images; infinite where none is done in time."""
    begin, sample = monotonic(), images[:: max(1, len(images) // _MAX_SAMPLE)]

    def run(position: int) -> None:
        with suppress(DataError):
            task(sample[position])

    chunks = (range(position, position + 1) for position in range(len(sample)))
    num_done = DaemonPool().run(run, chunks, lambda done: monotonic() - begin < _SAMPLE_SECONDS)
    return (monotonic() - begin) / num_done if num_done else inf


def read_in_time(read: Callable[[Callable[[str], None]], R], time: ReadingTime, notify: Callable[[str], None]) -> R:
    """The result of ``read``, in a thread that is abandoned where it does not return in time.

    Without a limit it runs in this thread.

    Args:
        read: takes a function for messages, which are passed to ``notify`` in this thread.
    Raises:
        BudgetError: where the time is over; and whatever ``read`` raises.
    """
    if not time.is_limited:
        return read(notify)
    messages: SimpleQueue[str | tuple[R | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            messages.put((read(messages.put), None))
        except BaseException as error:
            messages.put((None, error))

    threading.Thread(target=copy_context().run, args=(run,), name="timebox-reading", daemon=True).start()
    try:
        while True:
            try:
                message = messages.get(timeout=_POLL_SECONDS)
            except Empty:
                if time.has_stalled:
                    raise time.abandon() from None
                continue
            if isinstance(message, str):
                notify(message)
                continue
            result, error = message
            if error is not None:
                raise error
            return result  # type: ignore[return-value]
    except KeyboardInterrupt:  # the thread ends soon, unless it waits for a file
        time.abandon()
        end = monotonic() + _STOP_SECONDS
        while monotonic() < end:
            with suppress(Empty):
                if not isinstance(messages.get(timeout=_POLL_SECONDS), str):
                    break
        raise
