"""A disk that becomes slow: the weights go first, the rest as far as there is time, and what is missing is said."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from small_runs import FILES, quick, save_npz
from timebox.clock import Deadline
from timebox.planning.plan import Plan
from timebox.run import Run
from timebox.run.summary import FinishedSummary
from timebox.run.writer import RunWriter
from timebox.training.checkpointer import AsyncCheckpointer

FSYNC_SECONDS = 0.5
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of open files as on Linux")
OPTIONAL = {"predictions.npz", "examples.npz", "suspects.npz", "thumbnails.npz", "report.html"}


class TimeLeft(Deadline):
    """A deadline with a fixed time left, whatever is done."""

    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self.seconds = seconds

    def remaining(self) -> float:
        return self.seconds


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and directories that were synced, by name; only that takes time. No checkpoint is written."""
    names: list[str] = []

    def slowly(file: int) -> None:
        names.append(Path(f"/proc/self/fd/{file}").readlink().name)

    monkeypatch.setattr(os, "fsync", slowly)
    monkeypatch.setattr("timebox.run.writer.now", lambda: FSYNC_SECONDS * len(names))
    monkeypatch.setattr(AsyncCheckpointer, "is_due", lambda checkpointer: False)
    return names


@pytest.fixture
def trained(tmp_path: Path, synced: list[str]) -> Callable[[float], Run]:
    data = save_npz(tmp_path / "colours.npz", num_test=9)
    return lambda seconds: quick(data, tmp_path / "run", steps=2, deadline=TimeLeft(seconds))


def after_the_model(synced: list[str]) -> list[str]:
    position = next(index for index, name in enumerate(synced) if name.startswith(".model.safetensors."))
    return [name.split(".")[1] if name.startswith(".") else name for name in synced[position + 1 :]]


@pytest.mark.parametrize(
    ("files_left", "written", "waited_for"),
    [
        (30, OPTIONAL, ["run", "predictions", "examples", "metrics.jsonl", "report", "metrics.jsonl", "summary"]),
        (5, {"predictions.npz"}, ["run", "predictions", "metrics.jsonl", "summary"]),
        (3, set(), ["metrics.jsonl", "summary"]),
        (1, set(), []),
    ],
)
def test_weights_first_then_what_there_is_time_for(
    trained: Callable[[float], Run], synced: list[str], files_left: float, written: set[str], waited_for: list[str]
) -> None:
    run = trained(files_left * FSYNC_SECONDS)
    assert {path.name for path in run.path.iterdir()} == (FILES - OPTIONAL) | written
    assert after_the_model(synced) == waited_for
    assert any("report.html left out: " in event for event in run.summary["events"]) == ("report.html" not in written)
    assert not run.summary["late"]
    assert not run.summary["unwritten"]


def test_an_event_says_how_slow_the_disk_is(trained: Callable[[float], Run]) -> None:
    events = trained(5 * FSYNC_SECONDS).summary["events"]
    assert events == ["report.html left out: 2.5s before the deadline, and all that is left to do may take 2.6s now"]


def test_an_event_counts_the_report_and_the_exit_too(
    trained: Callable[[float], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "closing_seconds", 1.4)
    events = trained(5 * FSYNC_SECONDS).summary["events"]
    assert events[-1] == "report.html left out: 2.5s before the deadline, and all that is left to do may take 4.0s now"


def test_a_summary_that_comes_too_late_says_so(
    tmp_path: Path, trained: Callable[[float], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk stalls with the summary itself, for longer than there is time."""
    summaries: list[bool] = []
    save = RunWriter.save_summary

    def stalls(writer: RunWriter, summary: FinishedSummary) -> None:
        save(writer, summary)
        summaries.append(summary.late)
        monkeypatch.setattr(TimeLeft, "remaining", lambda deadline: -1.0)

    monkeypatch.setattr(RunWriter, "save_summary", stalls)
    assert trained(100.0).summary["late"]
    assert summaries == [False, True]
