"""Callbacks of real trainings: the events and their values, and trainings that no callback can hold up."""

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path

import numpy as np
import pytest
import torch

from budgets import within_budget
from callbacks.recording import Failing, Notes, Recorder
from cut_runs import STEPS, KilledError, cut
from small_runs import SMALL, quick, weights
from timebox.callbacks import dispatcher as dispatcher_module
from timebox.callbacks.events import CheckpointInfo, EndInfo, PlanInfo, StepInfo, ValidationInfo
from timebox.clock import now
from timebox.errors import ArgumentError, UsageError
from timebox.pipelines import train
from timebox.run import Run


def log_of(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_the_events_are_those_of_the_log_in_order(data: Path, tmp_path: Path) -> None:
    recorder, notes = Recorder(), Notes()
    run = quick(data, tmp_path / "run", steps=10, callbacks=[recorder], reporter=notes)
    plan, *others, end = recorder.events
    assert isinstance(plan, PlanInfo)
    assert (plan.run_directory, plan.budget_seconds, plan.expected_steps) == (tmp_path / "run", None, 10)
    assert list(plan.lines) == run.summary["plan"]
    assert plan.recipe == run.summary["recipe"]
    lines = [line for line in log_of(run) if "loss" in line or "val_accuracy" in line]
    followed = [info for info in others if not isinstance(info, CheckpointInfo)]
    assert [type(info) for info in followed] == [
        ValidationInfo if "val_accuracy" in line else StepInfo for line in lines
    ]
    for info, line in zip(followed, lines, strict=True):
        if isinstance(info, StepInfo):
            assert (info.step, info.epoch, info.progress, info.loss, info.lr, info.seconds_left) == (
                *(line[key] for key in ("step", "epoch", "progress", "loss", "lr")),
                None,
            )
            assert info.images_per_second > 0
        else:
            assert info == ValidationInfo(int(line["step"]), line["progress"], line["val_accuracy"])
    assert [info.step for info in recorder.of(StepInfo)] == list(range(1, 11))
    assert len(recorder.of(ValidationInfo)) == 4
    assert end == EndInfo(tmp_path / "run", run.summary)
    assert end.is_finished
    assert end.summary["test_accuracy"] is None
    assert recorder.threads == {"timebox-callbacks"}
    assert notes.about_callbacks() == []


def test_checkpoints_are_events(data: Path, tmp_path: Path) -> None:
    recorder = Recorder()

    class Waiting(Notes):
        def step(self, status: object) -> None:
            until = time.monotonic() + 30
            while not recorder.of(CheckpointInfo) and recorder.of(StepInfo) and time.monotonic() < until:
                time.sleep(0.01)

    quick(data, tmp_path / "run", steps=4, callbacks=[recorder], reporter=Waiting())
    (checkpoint,) = recorder.of(CheckpointInfo)
    assert checkpoint == CheckpointInfo(1, tmp_path / "run" / "checkpoint")


class Random(Recorder):
    """Draws from every global generator."""

    def on_plan(self, info: PlanInfo) -> None:
        torch.manual_seed(5)
        np.random.seed(5)

    def on_step(self, info: StepInfo) -> None:
        torch.rand(3)


def test_callbacks_do_not_change_the_weights(data: Path, tmp_path: Path) -> None:
    plain = quick(data, tmp_path / "plain")
    assert weights(quick(data, tmp_path / "followed", callbacks=[Random(), Recorder()])) == weights(plain)


def test_what_a_callback_raises_is_noted_and_recorded(data: Path, tmp_path: Path) -> None:
    failing, other = Failing(num_to_wait_for=3), Recorder()
    notes = Notes(lambda: failing.has_raised.wait(30) and time.sleep(0.1))
    run = quick(data, tmp_path / "run", callbacks=[failing, other], reporter=notes)
    events = run.summary["events"]
    assert isinstance(events, list)
    assert len(events) == 3
    assert all("of the callback Failing, at step" in line for line in events)
    assert notes.about_callbacks() == events
    assert len(failing.of(StepInfo)) == 3
    assert len(other.of(StepInfo)) == 6
    assert "raised ZeroDivisionError" in (run.path / "report.html").read_text()


def test_what_is_raised_after_the_summary_is_noted(data: Path, tmp_path: Path) -> None:
    class FailsAtEnd:
        def on_end(self, info: EndInfo) -> None:
            raise ValueError("no")

    notes = Notes()
    run = quick(data, tmp_path / "run", callbacks=[FailsAtEnd()], reporter=notes)
    (line,) = notes.about_callbacks()
    assert line.startswith("on_end of the callback FailsAtEnd raised ValueError: no (test_training.py:")
    assert run.summary["events"] == []


class Slow(Recorder):
    """Takes a second for each step."""

    def on_step(self, info: StepInfo) -> None:
        time.sleep(1)
        super().on_step(info)


def with_budget(data: Path, out: Path, **options: object) -> Callable[[float], Run]:
    """Train a small network within a budget."""

    def call(seconds: float) -> Run:
        arguments = {"recipe": "haet2021", "settings": SMALL, "device": "cpu", "precision": "fp32", **options}
        return train(data, budget=seconds, out=out, **arguments)  # type: ignore[arg-type]

    return call


@pytest.mark.integration
def test_a_slow_callback_makes_no_run_late(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "MAX_WAITING", 20)
    slow, notes, calls = Slow(), Notes(), []

    def timed(seconds: float) -> Run:
        began = now()
        try:
            return with_budget(data, tmp_path / "run", callbacks=[slow], reporter=notes)(seconds)
        finally:
            calls.append(now() - began)

    run, budget = within_budget(timed, 8.0)
    assert calls[-1] <= budget
    assert run.summary["late"] is False
    (dropped,) = [line for line in map(str, run.summary["events"]) if "on_step events were dropped" in line]  # type: ignore[call-overload]
    assert dropped in notes.lines
    num_steps, num_delivered = int(str(run.summary["steps"])), len(slow.of(StepInfo))
    assert num_steps > 40 > num_delivered
    counts = [re.match(r"([\d,]+) on_step events? w", line) for line in notes.lines]
    num_dropped = sum(int(count[1].replace(",", "")) for count in counts if count)
    assert num_delivered <= num_steps - num_dropped <= num_delivered + 1 + 20
    if any("left behind" in line for line in notes.lines):
        wait_for(lambda: bool(slow.of(EndInfo)))
    assert slow.end.summary["steps"] == num_steps


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Hanging:
    """Never returns from on_end, until it is let go."""

    def __init__(self) -> None:
        self.is_let_go = threading.Event()

    def on_end(self, info: EndInfo) -> None:
        self.is_let_go.wait(60)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.is_let_go.set()


LEFT_BEHIND = (
    "on_end of the callback Hanging has not returned in time: it is left behind, and the run is complete without it"
)


@pytest.mark.integration
def test_a_callback_that_hangs_makes_no_run_late(data: Path, tmp_path: Path, hanging: Hanging) -> None:
    calls, notes = [], Notes()

    def timed(seconds: float) -> Run:
        began = now()
        try:
            return with_budget(data, tmp_path / "run", callbacks=[hanging], reporter=notes)(seconds)
        finally:
            calls.append(now() - began)

    run, budget = within_budget(timed, 6.0)
    assert calls[-1] <= budget
    assert notes.about_callbacks() == [LEFT_BEHIND]
    assert run.summary["late"] is False


def test_a_callback_that_hangs_is_waited_for_no_longer_than_the_limit(
    data: Path, tmp_path: Path, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "MAX_WAIT_WITHOUT_DEADLINE", 0.2)
    notes = Notes()
    quick(data, tmp_path / "run", callbacks=[hanging], reporter=notes)
    assert notes.about_callbacks() == [LEFT_BEHIND]


def test_a_stopped_training_and_its_resumption_are_followed(data: Path, tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    stopped = cut(6, KeyboardInterrupt, quick, data, tmp_path / "run", STEPS, callbacks=[first])
    assert first.end == EndInfo(tmp_path / "run", stopped.summary)
    assert first.end.summary["stopped"] is True
    assert not first.end.is_finished
    run = train(resume=stopped.path, callbacks=[second])
    steps = [info.step for info in second.of(StepInfo)]
    assert steps == list(range(steps[0], STEPS + 1))
    assert second.events[0] in second.of(PlanInfo)
    assert second.end.summary == run.summary


def test_a_failed_training_has_an_end_with_the_error(data: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    with pytest.raises(KilledError):
        cut(6, KilledError, quick, data, tmp_path / "run", STEPS, callbacks=[recorder])
    assert recorder.end == EndInfo(tmp_path / "run", error="KilledError")


def test_a_replay_is_followed(data: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    run = quick(data, tmp_path / "run")
    train(replay=run.path, out=tmp_path / "again", callbacks=[recorder])
    assert [info.loss for info in recorder.of(StepInfo)] == [line["loss"] for line in log_of(run) if "loss" in line]
    assert recorder.end.run_directory == tmp_path / "again"
    assert recorder.end.summary["identical"] is True


def test_a_replaced_run_lies_where_the_plan_said(data: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    quick(data, tmp_path / "run", steps=2)
    quick(data, tmp_path / "run", steps=2, overwrite=True, callbacks=[recorder])
    (plan,) = recorder.of(PlanInfo)
    assert plan.run_directory == recorder.end.run_directory == tmp_path / "run"


def test_refusals_come_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    class Misspelt:
        def on_epoch(self, info: object) -> None: ...

    with pytest.raises(UsageError, match=r"has 'on_epoch', which would never be called: there are on_plan, on_step, "):
        quick(data, tmp_path / "run", callbacks=[Misspelt()])
    with pytest.raises(UsageError, match=r"^callbacks must be a list"):
        quick(data, tmp_path / "run", callbacks=Recorder())
    with pytest.raises(ArgumentError, match=r"has no argument 'callback'; did you mean 'callbacks'\?"):
        quick(data, tmp_path / "run", callback=[Recorder()])
    with pytest.raises(UsageError, match=r"there is no module 'naming_nowhere'"):
        quick(data, tmp_path / "run", callbacks=["naming_nowhere:Name"])
    assert not (tmp_path / "run").exists()
    assert "naming_nowhere" not in sys.modules


def test_infos_are_frozen_and_plain() -> None:
    info = StepInfo(1, 0.1, 0.2, float("nan"), 0.1, 10.0, None)
    assert isnan(info.loss)
    with pytest.raises(AttributeError):
        info.step = 2  # type: ignore[misc]
