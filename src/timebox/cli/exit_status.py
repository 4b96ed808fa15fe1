"""Exit statuses of the command line, and its handling of SIGINT and SIGTERM.

The first signal raises :class:`KeyboardInterrupt` in the running code, so that results can be saved, and starts a timer
that ends the process after some seconds in any case. A second one ends the process at once, by the system's default.

The exception is raised wherever the main thread happens to be, also in Python code that an extension module calls;
some of these, such as msgspec's, drop every exception there. It is raised again then: see :class:`_Stop`.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import ClassVar, NoReturn

from timebox.errors import OutputError

DONE = 0
OWN_FAULT = 1
REFUSED = 2
LATE_OR_PARTLY_WRITTEN = 3
STOPPED = 128  # plus the number of the signal: 130 for SIGINT, 143 for SIGTERM
# Time for saving after the first signal.
MAX_STOP_SECONDS = 4.5
RAISE_AGAIN_SECONDS = 0.01
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
_HAS_ALARM = hasattr(signal, "setitimer")  # not on Windows


class PartlyWrittenError(OutputError):
    """The model is trained, but not everything about it could be written."""


@dataclass
class StopSignals:
    """The signals received since :func:`stop_signals` began.

    Attributes:
        numbers: their numbers, in order.
        is_handled: set by the command line where it has caught the KeyboardInterrupt: it is not raised again then.
    """

    numbers: list[int] = field(default_factory=list)
    is_handled: bool = False


class _Stop(KeyboardInterrupt):
    """Makes SIGALRM raise it again where code outside this package caught or dropped it.

    An exception is deleted where it was dealt with, and its traceback begins with the function that did so. This
    package catches KeyboardInterrupt to save what is there; anything else drops it by mistake.
    """

    signals: ClassVar[StopSignals]

    def __del__(self) -> None:
        end = self.__traceback__
        is_ours = end is not None and end.tb_frame.f_code.co_filename.startswith(_PACKAGE)
        if _HAS_ALARM and not is_ours and not self.signals.is_handled:
            signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_SECONDS)


def _leave(status: int) -> None:
    """Print a line and end the process at once."""
    with suppress(OSError):
        os.write(2, b"timebox: stopped, in the middle of something slow; what was on disk before stays as it was\n")
    os._exit(status)


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handles stop signals inside the context. Outside the main thread it installs nothing."""
    received = StopSignals()
    timers: list[threading.Timer] = []

    class Stop(_Stop):
        signals = received

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        received.numbers.append(signum)
        last_resort = threading.Timer(MAX_STOP_SECONDS, _leave, (STOPPED + signum,))
        last_resort.daemon = True
        last_resort.start()
        timers.append(last_resort)
        for installed in (signal.SIGINT, signal.SIGTERM):
            if installed in previous:
                signal.signal(installed, signal.SIG_DFL)
        raise Stop

    def stop_again(signum: int, frame: FrameType | None) -> None:
        if not received.is_handled:
            raise Stop

    previous = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {signal.SIGINT: stop, signal.SIGTERM: stop} | ({signal.SIGALRM: stop_again} if _HAS_ALARM else {})
        for signum, handler in handlers.items():
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup and `&` in scripts set it
                previous[signum] = signal.signal(signum, handler)
    try:
        yield received
    finally:
        received.is_handled = True
        for timer in timers:
            timer.cancel()
        for signum, before in previous.items():
            signal.signal(signum, before)
