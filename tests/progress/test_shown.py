"""Where the progress of a call from Python is shown."""

import io
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from terminals import run_on_terminal
from timebox.progress import SilentReporter, progress_lines, shown
from timebox.progress.terminal import LiveReporter

PROGRAM = """
import timebox
timebox.train("digits", steps=20, scoring=False, out="run")
print("second")
timebox.evaluate("run", "digits", progress=False)
print("done")
"""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def take_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of stderr. Not a fixture: pytest exchanges the streams once more when a test begins."""
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    monkeypatch.setattr(shown.sys, "stderr", stream)
    return stream


def test_a_terminal_shows_progress_unless_it_is_declined(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    with shown.show_progress(None, True) as reporter:
        assert isinstance(reporter, LiveReporter)
        reporter.note("a line")
    assert "a line" in terminal.getvalue()
    with shown.show_progress(None, False) as reporter:
        assert isinstance(reporter, SilentReporter)


def test_the_reporter_of_the_caller_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    own = SilentReporter()
    with shown.show_progress(own, True) as reporter:
        assert reporter is own
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    "variables", [{"TERM": "dumb"}, {"TORCHELASTIC_RUN_ID": "a", "RANK": "1"}], ids=["dumb", "worker"]
)
def test_other_terminals_and_workers_stay_silent(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    take_terminal(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with shown.show_progress(None, True) as reporter:
        assert isinstance(reporter, SilentReporter)


def test_without_a_terminal_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(shown.sys, "stderr", stream)
        with shown.show_progress(None, True) as reporter:
            assert isinstance(reporter, SilentReporter)


def test_lines_are_printed_or_given_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    lines: list[str] = []
    progress_lines(lines.append, True)("one")
    progress_lines(None, True)("two\x1b")
    progress_lines(None, False)("three")
    assert lines == ["one"]
    assert terminal.getvalue() == "two\\x1b\n"


@pytest.mark.integration
def test_a_program_on_a_terminal(tmp_path: Path) -> None:
    written = run_on_terminal([sys.executable, "-c", PROGRAM], tmp_path).decode()
    live, silent = written.split("second\r\n")
    assert "step" in live
    assert "img/s" in live
    assert silent == "done\r\n"
