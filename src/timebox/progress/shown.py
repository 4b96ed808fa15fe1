"""Whether and where the progress of a call from Python is shown."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from timebox.machine import is_worker_rank
from timebox.progress.notebook import NotebookReporter
from timebox.progress.reporter import Reporter, SilentReporter
from timebox.progress.terminal import LiveReporter, print_line, steady_console


def is_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def is_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def is_shown(progress: bool) -> bool:
    """Whether a call with ``progress`` shows it: on a terminal or in a notebook, by one process of several."""
    return progress and not is_worker_rank() and (is_notebook() or is_terminal())


@contextmanager
def show_progress(reporter: Reporter | None, progress: bool, budget_seconds: float | None = None) -> Iterator[Reporter]:
    """The reporter of a call from Python: the caller's; else one that shows the progress, if :func:`is_shown`."""
    if reporter is not None or not is_shown(progress):
        yield reporter or SilentReporter()
        return
    shown = (
        NotebookReporter(budget_seconds) if is_notebook() else LiveReporter(steady_console(sys.stderr), budget_seconds)
    )
    try:
        yield shown
    finally:
        shown.close()


def progress_lines(notify: Callable[[str], None] | None, progress: bool) -> Callable[[str], None]:
    """Where a call sends its lines: the caller's function; else one that prints them, if :func:`is_shown`."""
    return notify or (_print_line if is_shown(progress) else _ignore)


def _print_line(line: str) -> None:
    print_line(line, sys.stdout if is_notebook() else sys.stderr)


def _ignore(line: str) -> None:
    pass
