"""Handling of SIGINT and SIGTERM.

The first signal raises :class:`KeyboardInterrupt` in the running code, so that results can be saved; the process is
ended some seconds later in any case. A second one ends it at once. A thread sees to both, as Python calls no handler
during a long operation of an extension module.

The exception is raised wherever the main thread happens to be, also in Python code that an extension module calls;
some of these, such as msgspec's, drop every exception there. It is raised again then: see :class:`_Stop`.
"""

import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

from timebox.cli.exit_status import STOPPED

# Time for saving after the first signal.
MAX_STOP_SECONDS = 4.5
RAISE_AGAIN_SECONDS = 0.01
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HAS_ALARM = hasattr(signal, "setitimer")  # not on Windows
_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


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


class _Watcher(threading.Thread):
    """Ends the process at the second signal, or some seconds after the first, whatever the main thread does."""

    def __init__(self) -> None:
        super().__init__(name="stop-signals", daemon=True)
        self._reader, self._writer = socket.socketpair()  # Windows can wait for sockets only
        self._writer.setblocking(False)
        # Python's C handler writes the number of each signal at once, before any handler in Python.
        self._previous_writer = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self.start()

    def run(self) -> None:
        """Wait for signals, until :meth:`close`."""
        first = self._next_number(None)
        if not first:
            return
        second = self._next_number(MAX_STOP_SECONDS)
        if second:
            os._exit(STOPPED + second)
        if second is None:
            with suppress(OSError):
                os.write(
                    2, b"timebox: stopped, in the middle of something slow; what was on disk before stays as it was\n"
                )
            os._exit(STOPPED + first)

    def _next_number(self, max_seconds: float | None) -> int | None:
        """The next stop signal; 0 after :meth:`close`; None where neither comes in time."""
        while select.select([self._reader], [], [], max_seconds)[0]:
            (number,) = self._reader.recv(1)
            if number in (0, *STOP_SIGNALS):
                return number
        return None

    def close(self) -> None:
        """Watch no longer."""
        signal.set_wakeup_fd(self._previous_writer)
        self._writer.send(b"\0")
        self.join()
        self._reader.close()
        self._writer.close()


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handles stop signals inside the context. Outside the main thread it does nothing."""
    received = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    watcher = _Watcher()
    previous = _set_handlers(received)
    try:
        yield received
    finally:
        received.is_handled = True
        watcher.close()
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _set_handlers(received: StopSignals) -> dict[int, Any]:
    """Install the handlers; returns those that they replace."""

    class Stop(_Stop):
        signals = received

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        received.numbers.append(signum)
        for installed in previous.keys() & STOP_SIGNALS:
            signal.signal(installed, signal.SIG_DFL)
        raise Stop

    def stop_again(signum: int, frame: FrameType | None) -> None:
        if not received.is_handled:
            raise Stop

    handlers = dict.fromkeys(STOP_SIGNALS, stop) | ({signal.SIGALRM: stop_again} if _HAS_ALARM else {})
    previous: dict[int, Any] = {}
    for signum, handler in handlers.items():
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup and `&` in scripts set it
            previous[signum] = signal.signal(signum, handler)
    return previous
