"""The line that follows a training, wherever it is drawn."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from timebox.errors import one_line
from timebox.progress.reporter import ProgressNote
from timebox.progress.status_line import phase_line, status_line

if TYPE_CHECKING:
    from rich.text import Text

    from timebox.progress.reporter import StepStatus


class LineReporter(ABC):
    """Draws the phase or the latest step as one line, steps at most once in :attr:`redraw_seconds`."""

    redraw_seconds: ClassVar[float]

    def __init__(self, budget_seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._budget_seconds = budget_seconds
        self._now = now
        self._next_draw = 0.0
        self.last_phase = ""

    def phase(self, name: str) -> None:
        self.last_phase = name
        self._redraw(phase_line(one_line(name)))

    @property
    @abstractmethod
    def columns(self) -> int:
        """Width of the line."""

    def note(self, text: str) -> None:
        if isinstance(text, ProgressNote):
            self._redraw(phase_line(one_line(text)))
        else:
            self._keep(one_line(text))

    @abstractmethod
    def _keep(self, line: str) -> None:
        """Add a line that stays, above the one that is redrawn."""

    def step(self, status: "StepStatus") -> None:
        if self._now() >= self._next_draw:
            self._redraw(status_line(status, self._budget_seconds, self.columns))

    def _redraw(self, line: "Text") -> None:
        self._draw(line)
        self._next_draw = self._now() + self.redraw_seconds

    @abstractmethod
    def _draw(self, line: "Text") -> None:
        """Put a line in the place of the one before."""
