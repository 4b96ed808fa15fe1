"""Progress in a notebook: one output below the cell, redrawn in place. It needs IPython alone, and no widgets."""

import io
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from timebox.progress.line_reporter import LineReporter

if TYPE_CHECKING:
    from rich.text import Text

_CODE_FORMAT = (
    "<pre style=\"line-height:normal;white-space:pre-wrap;font-family:Menlo,'DejaVu Sans Mono',monospace\">{code}</pre>"
)


class NotebookReporter(LineReporter):
    """The notes and, below them, a line that follows the steps and goes at the end.

    It is itself what is displayed: as HTML, and as plain text where a notebook is converted to text.
    """

    redraw_seconds = 0.5
    columns = 80

    def __init__(self, budget_seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        from IPython.display import display

        super().__init__(budget_seconds, now)
        self._notes: list[str] = []
        self._line: Text | None = None
        self._output = display(self, display_id=True)  # type: ignore[no-untyped-call]

    def _keep(self, line: str) -> None:
        self._notes.append(line)
        self._show(self._line)

    def close(self) -> None:
        self._show(None)

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
            width=self.columns,
            force_jupyter=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        for line in lines:
            console.print(line)
        return console.export_html(inline_styles=True, code_format=_CODE_FORMAT)

    def _draw(self, line: "Text") -> None:
        self._show(line)

    def _show(self, line: "Text | None") -> None:
        """Show the notes, and a line below them."""
        self._line = line
        if self._output is not None:  # outside a kernel there is no output to update
            self._output.update(self)
