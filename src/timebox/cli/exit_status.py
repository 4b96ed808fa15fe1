"""Exit statuses of the command line, and its handling of SIGINT and SIGTERM.

The first signal raises :class:`KeyboardInterrupt` in the running code, so that results can be saved, and starts a timer
that ends the process after some seconds in any case. A second one ends the process at once, by the system's default.
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
# Time for saving after the first signal.
MAX_STOP_SECONDS = 4.5


class PartlyWrittenError(OutputError):
    """The model is trained, but not everything about it could be written."""


def _leave(status: int) -> None:
    """Print a line and end the process at once."""
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
        last_resort = threading.Timer(MAX_STOP_SECONDS, _leave, (STOPPED + signum,))
        last_resort.daemon = True
        last_resort.start()
        timers.append(last_resort)
        for installed in previous:
            signal.signal(installed, signal.SIG_DFL)
        raise KeyboardInterrupt

    previous = {}
    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup and `&` in scripts set it
                previous[signum] = signal.signal(signum, stop)
    try:
        yield received
    finally:
        for timer in timers:
            timer.cancel()
        for signum, handler in previous.items():
            signal.signal(signum, handler)
