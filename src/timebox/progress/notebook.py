"""Progress in a notebook: one output below the cell, redrawn in place. It needs IPython alone, and no widgets."""

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from timebox.errors import one_line
from timebox.progress.status_line import phase_line, status_line

if TYPE_CHECKING:
    from rich.text import Text

    from timebox.progress.reporter import StepStatus

REDRAW_SECONDS = 0.5
COLUMNS = 80
_CODE_FORMAT = (
    "<pre style=\"line-height:normal;white-space:pre-wrap;font-family:Menlo,'DejaVu Sans Mono',monospace\">{code}</pre>"
)


class NotebookReporter:
    """The notes and, below them, a line that follows the steps and goes at the end.

    It is itself what is displayed: as HTML, and as plain text where a notebook is converted to text.
    """

    def __init__(self, budget_seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        from IPython.display import display

        self._budget_seconds = budget_seconds
        self._now = now
        self._next_draw = 0.0
        self._notes: list[str] = []
        self._line: Text | None = None
        self._output = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def phase(self, name: str) -> None:
        self._draw(phase_line(one_line(name)))

    def note(self, text: str) -> None:
        self._notes.append(one_line(text))
        self._draw(self._line)

    def step(self, status: "StepStatus") -> None:
        if self._now() >= self._next_draw:
            self._draw(status_line(status, self._budget_seconds, COLUMNS))

    def close(self) -> None:
        self._draw(None)

    def __repr__(self) -> str:
        return "\n".join([*self._notes, *([self._line.plain] if self._line else [])])

    def _repr_html_(self) -> str:
        from rich.console import Console

        lines = (*self._notes, *([self._line] if self._line else []))
        if not lines:
            return ""
        console = Console(
            record=True,
            file=io.StringIO(),
            width=COLUMNS,
            force_jupyter=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        for line in lines:
            console.print(line)
        return console.export_html(inline_styles=True, code_format=_CODE_FORMAT)

    def _draw(self, line: "Text | None") -> None:
        self._line = line
        if self._output is not None:  # outside a kernel there is no output to update
            self._output.update(self)
        self._next_draw = self._now() + REDRAW_SECONDS
