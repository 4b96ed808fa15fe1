"""The progress of a command on stderr: one live line on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from timebox.cli.streams import guard_stderr, unguarded
from timebox.progress.shown import is_terminal
from timebox.progress.terminal import LiveReporter, PlainReporter, steady_console


@contextmanager
def progress(budget_seconds: float | None = None) -> Iterator[LiveReporter | PlainReporter]:
    """The reporter for stderr. Closed also when an error ends the work."""
    reporter: LiveReporter | PlainReporter
    if is_terminal():
        reporter = LiveReporter(steady_console(unguarded(sys.stderr)), budget_seconds)
        guard_stderr()  # rich has put a stream of its own in place, until the line is removed
    else:
        reporter = PlainReporter(sys.stderr, budget_seconds)
    try:
        yield reporter
    finally:
        reporter.close()
