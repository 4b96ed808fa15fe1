"""The queue of events and its thread: order, bounds, exceptions, and callbacks that do not return."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callbacks.recording import Failing, Notes, Recorder, step_info
from timebox.callbacks import dispatcher as dispatcher_module
from timebox.callbacks.dispatcher import (
    MAX_WAIT_SECONDS,
    MAX_WAIT_WHEN_STOPPED,
    MAX_WAIT_WITHOUT_DEADLINE,
    CallbackDispatcher,
    dispatch_to,
    max_wait,
)
from timebox.callbacks.events import CheckpointInfo, EndInfo, PlanInfo, StepInfo, ValidationInfo
from timebox.cli.signals import MAX_STOP_SECONDS
from timebox.clock import Deadline
from timebox.jobs.fit import LAST_CHECKPOINT_SECONDS
from timebox.training.checkpointer import WAIT_ON_FAILURE_SECONDS

PLAN = PlanInfo(Path("run"), ("a line",), {"width": 4}, None, 6)
CHECKPOINT = CheckpointInfo(3, Path("run/checkpoint"))
PLENTY = 30.0


class Gate:
    """A callback that waits in on_step until it is let through."""

    def __init__(self) -> None:
        self.is_reached, self.is_open = threading.Event(), threading.Event()
        self.steps: list[int] = []

    def on_step(self, info: StepInfo) -> None:
        self.is_reached.set()
        self.is_open.wait(PLENTY)
        self.steps.append(info.step)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.is_open.set()


def started(*callbacks: object) -> CallbackDispatcher:
    dispatcher = CallbackDispatcher(callbacks)
    dispatcher.start()
    return dispatcher


def wait_at(gate: Gate, dispatcher: CallbackDispatcher) -> None:
    """Have the thread wait in the first step."""
    dispatcher.submit(step_info(1))
    assert gate.is_reached.wait(PLENTY)


def test_events_are_delivered_in_order_by_one_daemon_thread() -> None:
    one, other = Recorder(), Recorder()
    dispatcher = started(one, other)
    events = [PLAN, step_info(1), ValidationInfo(1, 0.5, 0.8), step_info(2), CHECKPOINT, EndInfo(Path("run"))]
    for event in events:
        dispatcher.submit(event)
    assert dispatcher._thread.daemon
    assert dispatcher.close(PLENTY) is None
    assert one.events == other.events == events
    assert one.threads == {"timebox-callbacks"}
    assert (dispatcher.plan, dispatcher.end) == (PLAN, events[-1])
    dispatcher.submit(step_info(3))  # too late
    assert dispatcher.messages() == []


def test_without_callbacks_there_is_no_thread() -> None:
    dispatcher = started()
    dispatcher.submit(PLAN)
    assert not dispatcher._thread.is_alive()
    assert dispatcher.close(PLENTY) is None


def test_events_that_no_callback_receives_do_not_wait(gate: Gate) -> None:
    dispatcher = started(gate)
    wait_at(gate, dispatcher)
    dispatcher.submit(CHECKPOINT)
    assert len(dispatcher._waiting) == 0


def test_the_oldest_steps_are_dropped_first_and_counted(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "MAX_WAITING", 4)
    recorder = Recorder()
    dispatcher = started(gate, recorder)
    wait_at(gate, dispatcher)
    dispatcher.submit(CHECKPOINT)
    for step in range(2, 9):
        dispatcher.submit(step_info(step))
    dispatcher.submit(EndInfo(Path("run")))
    gate.is_open.set()
    assert dispatcher.close(PLENTY) is None
    assert gate.steps == [1, 7, 8]
    assert recorder.events == [step_info(1), CHECKPOINT, step_info(7), step_info(8), EndInfo(Path("run"))]
    assert dispatcher.messages() == ["5 on_step events were dropped: the callbacks are slower than the training"]
    assert dispatcher.messages() == []


def test_where_no_step_waits_the_oldest_event_is_dropped(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "MAX_WAITING", 2)
    recorder = Recorder()
    dispatcher = started(gate, recorder)
    wait_at(gate, dispatcher)
    for step in (1, 2, 3):
        dispatcher.submit(CheckpointInfo(step, Path("run/checkpoint")))
    gate.is_open.set()
    dispatcher.close(PLENTY)
    assert [info.step for info in recorder.of(CheckpointInfo)] == [2, 3]
    assert dispatcher.messages() == ["1 on_checkpoint event was dropped: the callbacks are slower than the training"]


def test_after_three_exceptions_a_callback_gets_no_further_events() -> None:
    failing, other = Failing(), Recorder()
    dispatcher = started(failing, other)
    for step in range(1, 6):
        dispatcher.submit(step_info(step))
    dispatcher.submit(EndInfo(Path("run")))
    assert dispatcher.close(PLENTY) is None
    assert len(failing.events) == 3
    assert len(other.events) == 6, "the others get theirs"
    lines = dispatcher.failures()
    assert lines[0].startswith(
        r"on_step of the callback Failing, at step 1, raised ZeroDivisionError: password=***\nin step 1 "
        "(recording.py:"
    )
    assert lines[0].endswith(")")
    assert lines[2].endswith("; after 3 exceptions it gets no further events")
    assert len(lines) == 3
    assert dispatcher.failures() == []


def test_a_system_exit_in_a_callback_is_an_exception_like_any_other() -> None:
    failing = Failing()
    dispatcher = started(failing)
    dispatcher.submit(EndInfo(Path("run")))
    dispatcher.close(PLENTY)
    (line,) = dispatcher.messages()
    assert line.startswith("on_end of the callback Failing raised SystemExit: 3 (recording.py:")


def test_a_callback_that_does_not_return_is_left_behind(gate: Gate) -> None:
    recorder = Recorder()
    dispatcher = started(gate, recorder)
    wait_at(gate, dispatcher)
    for step in (2, 3):
        dispatcher.submit(step_info(step))
    dispatcher.submit(EndInfo(Path("run")))
    began = time.monotonic()
    line = dispatcher.close(0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert line == (
        "on_step of the callback Gate has not returned in time, and 1 more events wait: it is left behind, and the run "
        "is complete without it"
    )
    assert dispatcher.messages() == ["2 on_step events were dropped: the callbacks are slower than the training"]
    gate.is_open.set()
    dispatcher._thread.join(PLENTY)
    assert recorder.events == [step_info(1), EndInfo(Path("run"))], "the end is delivered later"


def test_ctrl_c_ends_the_wait(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    dispatcher = started(gate)
    wait_at(gate, dispatcher)

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatcher._thread, "join", interrupt)
    assert "left behind" in str(dispatcher.close(PLENTY))


def test_the_wait_fits_before_the_deadline() -> None:
    at = [0.0]
    deadline = Deadline(100.0, started_at=0.0, now=lambda: at[0])
    assert max_wait(deadline, is_finished=True) == MAX_WAIT_SECONDS
    at[0] = 98.0
    assert max_wait(deadline, is_finished=True) == 1.0
    at[0] = 101.0
    assert max_wait(deadline, is_finished=True) == 0.0
    assert max_wait(deadline, is_finished=False) == MAX_WAIT_WHEN_STOPPED
    assert max_wait(Deadline(None), is_finished=True) == MAX_WAIT_WITHOUT_DEADLINE
    assert MAX_WAIT_WHEN_STOPPED + LAST_CHECKPOINT_SECONDS + WAIT_ON_FAILURE_SECONDS < MAX_STOP_SECONDS


def test_an_error_of_the_training_is_the_end() -> None:
    recorder, notes = Recorder(), Notes()
    with pytest.raises(ValueError, match="too large"), dispatch_to([recorder], Deadline(None), notes) as dispatcher:
        dispatcher.submit(PLAN)
        raise ValueError("too large")
    assert recorder.end == EndInfo(Path("run"), error="ValueError: too large")
    assert not recorder.end.is_finished
    assert notes.lines == []


def test_there_is_no_end_without_a_plan() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), dispatch_to([recorder], Deadline(None), Notes()):
        raise KeyboardInterrupt
    assert recorder.events == []
