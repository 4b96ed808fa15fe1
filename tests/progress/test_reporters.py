"""What progress looks like, on a terminal and elsewhere."""

import io
import math
from dataclasses import replace as changed

import pytest
from rich.console import Console

from timebox.cli.display import progress
from timebox.progress import StepStatus
from timebox.progress.status_line import share_done, status_line, time_left
from timebox.progress.terminal import LiveReporter, PlainReporter, steady_console

STATUS = StepStatus(
    step=1234, total_steps=2900, epoch=12.3, progress=0.42, loss=0.5123, lr=0.0412, momentum=0.9,
    images_per_second=1432.4, seconds_left=35.2, val_accuracy=0.9123,
)  # fmt: skip
WORST = changed(STATUS, step=112345, total_steps=223456, epoch=123.4, lr=0.000412, seconds_left=3755.0)
UNKNOWN = changed(STATUS, loss=math.nan, seconds_left=None, val_accuracy=None, images_per_second=0.0)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_a_wide_terminal_shows_everything() -> None:
    line = status_line(STATUS, 60.0, 120).plain
    assert line.lstrip("━─").split("  ")[1:] == [
        "step 1234/2900", "epoch 12.3", "loss 0.512", "lr 0.0412", "1,432 img/s", "val 91.2%", "0:35 left",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [STATUS, WORST, UNKNOWN], ids=["usual", "worst", "unknown"])
@pytest.mark.parametrize("width", [200, 120, 80, 60, 40, 20])
def test_the_line_fits_and_keeps_what_matters(status: StepStatus, width: int) -> None:
    line = status_line(status, 60.0, width).plain
    assert len(line) <= width
    assert len(line) - len(line.lstrip("━─")) >= 5
    assert "left" in line or status.seconds_left is None


def test_eighty_columns_hold_every_usual_figure_but_one() -> None:
    line = status_line(STATUS, 60.0, 80).plain
    for words in ("step 1234/2900", "epoch 12.3", "loss 0.512", "1,432 img/s", "val 91.2%", "0:35 left"):
        assert words in line


def test_the_narrowest_terminal_keeps_the_time_left() -> None:
    assert status_line(STATUS, 60.0, 16).plain == "━━──── 0:35 left"


def test_the_bar_is_the_budget_or_else_the_schedule() -> None:
    assert share_done(STATUS, 60.0) == pytest.approx(1 - 35.2 / 60)
    assert share_done(STATUS, None) == 0.42
    assert share_done(changed(STATUS, seconds_left=-1.0), 60.0) == 1.0
    assert share_done(UNKNOWN, 60.0) == 0.42


def test_time_left_reads_like_a_clock() -> None:
    assert [time_left(seconds) for seconds in (-3, 0.9, 42, 725, 3755)] == ["0:00", "0:00", "0:42", "12:05", "1:02:35"]


def test_plain_lines_come_for_phases_and_tenths() -> None:
    stream, clock = io.StringIO(), Clock()
    reporter = PlainReporter(stream, None, clock)
    reporter.phase("reading")
    clock.time += 2.14
    reporter.note("1,797 images")
    reporter.phase("training")
    for step in range(1, 1001):
        reporter.step(changed(STATUS, step=step, total_steps=1000, progress=step / 1000, seconds_left=None))
    lines = stream.getvalue().splitlines()
    assert lines[:3] == ["    0.0s  reading", "    2.1s    1,797 images", "    2.1s  training"]
    assert len(lines) == 3 + 10
    assert lines[3] == "    2.1s     10%  step  100/1000  epoch 12.3  loss 0.512  lr 0.0412  1,432 img/s  val 91.2%"


def test_the_live_line_is_drawn_at_most_five_times_a_second() -> None:
    stream, clock = io.StringIO(), Clock()
    reporter = LiveReporter(Console(file=stream, force_terminal=True, width=80, color_system=None), 60.0, clock)
    try:
        reporter.phase("reading")
        before = len(stream.getvalue())
        reporter.step(STATUS)
        assert len(stream.getvalue()) == before
        clock.time += 0.21
        reporter.step(STATUS)
        assert "0:35 left" in stream.getvalue()[before:]
        drawn = len(stream.getvalue())
        for _ in range(100):
            clock.time += 0.001
            reporter.step(STATUS)
        assert len(stream.getvalue()) == drawn
        reporter.note("a note")
        assert "a note" in stream.getvalue()[drawn:]
    finally:
        reporter.close()


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(5, "Input/output error")])
def test_a_stderr_that_is_gone_never_stops_the_work(error: OSError) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise error

        def isatty(self) -> bool:
            return True

    for reporter in (PlainReporter(Gone(), None), LiveReporter(steady_console(Gone()), None)):
        reporter.phase("reading")
        reporter.note("a note")
        reporter.step(STATUS)
        reporter.close()


def test_without_a_terminal_progress_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as reporter:
        reporter.phase("reading")
    assert capsys.readouterr() == ("", "    0.0s  reading\n")
