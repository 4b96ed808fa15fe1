"""How a command ends: the exit statuses, and the two signals that stop it.

A first SIGINT or SIGTERM raises :class:`KeyboardInterrupt` where the command stands, so that what was reached can be
saved, and ends the process after some seconds in any case; a second one ends it at once, by the system's own default,
which needs nothing of Python.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from timebox.errors import OutputError

DONE = 0
OWN_FAULT = 1
REFUSED = 2
LATE_OR_PARTLY_WRITTEN = 3
STOPPED = 128  # plus the number of the signal: 130 for SIGINT, 143 for SIGTERM
# What was reached is on disk by then, or cannot be brought there.
LONGEST_STOP_SECONDS = 4.5


class PartlyWrittenError(OutputError):
    """The model is trained, but not everything about it could be written."""


def _leave(status: int) -> None:
    """End the process without waiting for anything."""
    with suppress(OSError):
        os.write(2, b"timebox: stopped, in the middle of something slow; what was on disk before stays as it was\n")
    os._exit(status)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yields the list of the stop signals received so far. Outside the main thread it installs nothing."""
    received: list[int] = []
    timers: list[threading.Timer] = []

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        received.append(signum)
        last_resort = threading.Timer(LONGEST_STOP_SECONDS, _leave, (STOPPED + signum,))
        last_resort.daemon = True
        last_resort.start()
        timers.append(last_resort)
        for installed in previous:
            signal.signal(installed, signal.SIG_DFL)
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup and `&` in scripts ignore it on purpose
                previous[signum] = signal.signal(signum, stop)
    try:
        yield received
    finally:
        for timer in timers:
            timer.cancel()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
