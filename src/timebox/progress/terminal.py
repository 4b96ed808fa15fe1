"""Progress on a terminal: a line that is redrawn in place. And plain lines, where there is no terminal.

The live line is drawn from `step`, at most five times a second, not by a background thread. Errors of writing to
stderr, such as a closed pipe, are ignored.
"""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from timebox.errors import one_line
from timebox.progress.line_reporter import LineReporter
from timebox.progress.status_line import share_done, status_fields

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from timebox.progress.reporter import StepStatus


class LiveReporter(LineReporter):
    """A line that is redrawn in place, below the notes, and removed at the end."""

    redraw_seconds = 0.2

    def __init__(
        self, console: "Console", budget_seconds: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.live import Live

        super().__init__(budget_seconds, now)
        # What a program prints meanwhile appears above the line; where stdout is no terminal, it goes its own way.
        redirect = sys.stdout is not None and sys.stdout.isatty()
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=redirect)
        self._live.start()
        self._has_notes = False

    @property
    def columns(self) -> int:
        return self._live.console.width

    def _keep(self, line: str) -> None:
        self._has_notes = True
        with suppress(OSError):
            self._live.console.print(line)

    def close(self) -> None:
        with suppress(OSError):
            self._live.stop()
            if self._has_notes:
                self._live.console.print()  # between the notes and the result

    def _draw(self, line: "Text") -> None:
        with suppress(OSError):
            self._live.update(line, refresh=True)


class PlainReporter:
    """A line for each phase, each note and each tenth of the budget or steps; each begins with the elapsed seconds."""

    def __init__(self, stream: TextIO, budget_seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._budget_seconds = budget_seconds
        self._now = now
        self.last_phase = ""
        self._started = now()
        self._tenths = 0

    def phase(self, name: str) -> None:
        self.last_phase = name
        self._line(name)

    def note(self, text: str) -> None:
        self._line(f"  {text}")

    def step(self, status: "StepStatus") -> None:
        share = share_done(status, self._budget_seconds)
        if int(share * 10) > self._tenths:
            self._tenths = int(share * 10)
            text = "  ".join(f"{label} {value}".strip() for _, label, value in status_fields(status))
            self._line(f"  {share:4.0%}  {text}")

    def close(self) -> None:
        pass

    def _line(self, text: str) -> None:
        print_line(f"{self._now() - self._started:7.1f}s  {text}", self._stream)


def print_line(line: str, stream: TextIO) -> None:
    """Print a line and flush; a line break or control character in it is escaped. Errors are ignored: a closed stream
    must not stop the work."""
    with suppress(OSError):
        print(one_line(line), file=stream, flush=True)


def steady_console(stream: TextIO) -> "Console":
    """A rich console that neither hides the cursor nor redirects a closed stdout."""
    from rich.console import Console

    class SteadyConsole(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a killed process would leave the terminal without a cursor

        def on_broken_pipe(self) -> None:
            self.quiet = True  # rich would redirect stdout to /dev/null and exit, in the middle of a training

    return SteadyConsole(file=stream, highlight=False, markup=False, emoji=False)
