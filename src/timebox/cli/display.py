"""Progress on stderr: one live line on a terminal, plain lines elsewhere.

Both implement :class:`timebox.reporter.Reporter`. The live line is drawn from `step`, at most five times a second, not
by a background thread. Errors of writing to stderr, such as a closed pipe, are ignored.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from timebox.cli.formatting import percent, short
from timebox.cli.streams import guard_stderr, unguarded
from timebox.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from timebox.reporter import StepStatus

REDRAW_SECONDS = 0.2
MIN_BAR, MAX_BAR = 5, 30


def share_done(status: "StepStatus", budget_seconds: float | None) -> float:
    """The share of the command that is over, 0 to 1: of its budget if there is one, else of its steps."""
    if budget_seconds is None or status.seconds_left is None:
        return min(max(status.progress, 0.0), 1.0)
    return min(max(1 - status.seconds_left / budget_seconds, 0.0), 1.0)


def time_left(seconds: float) -> str:
    """`0:42`, `12:05`, `1:02:35`; never below zero."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def status_fields(status: "StepStatus") -> list[tuple[int, str, str]]:
    """The fields of a status line, from left to right: (rank, label, value). Where not all fit, those of the highest
    ranks are left out."""
    fields = [
        (2, "step", f"{status.step:>{len(str(status.total_steps))}}/{status.total_steps}"),
        (4, "epoch", f"{status.epoch:.1f}"),
        (1, "loss", short(status.loss)),
        (6, "lr", short(status.lr)),
        (5, "", f"{status.images_per_second:,.0f} img/s"),
    ]
    if status.val_accuracy is not None:
        fields.append((3, "val", percent(status.val_accuracy, 1).replace(" ", "")))
    if status.seconds_left is not None:
        fields.append((0, "", f"{time_left(status.seconds_left)} left"))
    return fields


def status_line(status: "StepStatus", budget_seconds: float | None, width: int) -> "Text":
    """The live line: a bar and as many fields as fit into `width` columns."""
    from rich.text import Text

    shown = status_fields(status)
    gap = 2

    def room() -> int:
        return width - sum(len(f"{label} {value}".strip()) + gap for _, label, value in shown)

    if room() < MIN_BAR:
        gap = 1
    while room() < MIN_BAR and len(shown) > 1:
        shown.remove(max(shown))
    size = min(max(room(), 0), MAX_BAR)
    filled = round(size * share_done(status, budget_seconds))
    line = Text("━" * filled, style="green", no_wrap=True, overflow="crop", end="")
    line.append("─" * (size - filled), style="bright_black")
    for _, label, value in shown:
        line.append(" " * gap if line else "")
        line.append(f"{label} " if label else "", style="bright_black")
        line.append(value)
    return line


class LiveReporter:
    """A line that is redrawn in place, below the notes, and removed at the end."""

    def __init__(
        self, console: "Console", budget_seconds: float | None, now: Callable[[], float] = time.monotonic
    ) -> None:
        from rich.live import Live

        self._budget_seconds = budget_seconds
        self._now = now
        self.last_phase = ""
        self._next_draw = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()

    def phase(self, name: str) -> None:
        self.last_phase = name
        from rich.text import Text

        self._draw(Text(f"{one_line(name)} …", style="bright_black", no_wrap=True, overflow="crop", end=""))

    def note(self, text: str) -> None:
        with suppress(OSError):
            self._live.console.print(one_line(text))

    def step(self, status: "StepStatus") -> None:
        if self._now() >= self._next_draw:
            self._draw(status_line(status, self._budget_seconds, self._live.console.width))

    def close(self) -> None:
        with suppress(OSError):
            self._live.stop()

    def _draw(self, line: "Text") -> None:
        with suppress(OSError):
            self._live.update(line, refresh=True)
        self._next_draw = self._now() + REDRAW_SECONDS


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
        with suppress(OSError):
            print(f"{self._now() - self._started:7.1f}s  {one_line(text)}", file=self._stream, flush=True)


def steady_console(stream: TextIO) -> "Console":
    """A rich console that neither hides the cursor nor redirects a closed stdout."""
    from rich.console import Console

    class SteadyConsole(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a killed process would leave the terminal without a cursor

        def on_broken_pipe(self) -> None:
            self.quiet = True  # rich would redirect stdout to /dev/null and exit, in the middle of a training

    return SteadyConsole(file=stream, highlight=False, markup=False, emoji=False)


@contextmanager
def progress(budget_seconds: float | None = None) -> Iterator[LiveReporter | PlainReporter]:
    """The reporter for stderr: a live line on a terminal, else plain lines. Closed also when an error ends the work."""
    reporter: LiveReporter | PlainReporter
    if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        reporter = LiveReporter(steady_console(unguarded(sys.stderr)), budget_seconds)
        guard_stderr()  # rich has put a stream of its own in place, until the line is removed
    else:
        reporter = PlainReporter(sys.stderr, budget_seconds)
    try:
        yield reporter
    finally:
        reporter.close()
