"""Events made of what a training logs and reports."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path

from callbacks.recording import Failing, Notes, Recorder
from timebox.callbacks.dispatcher import CallbackDispatcher
from timebox.callbacks.event_source import EventSource
from timebox.callbacks.events import EndInfo, StepInfo, ValidationInfo
from timebox.progress import StepStatus


def entry(step: int, loss: float | None = 1.5) -> dict[str, object]:
    return {"step": step, "epoch": 0.5, "progress": 0.25, "lr": 0.1, "momentum": 0.9, "micro_batch": 8, "loss": loss}


def status(step: int) -> StepStatus:
    return StepStatus(step, 10, 0.5, 0.25, 1.5, 0.1, 0.9, 1000.0 + step, 60.0 - step, None)


class Source:
    """An event source and what it passes on."""

    def __init__(self, callback: object) -> None:
        self.dispatcher = CallbackDispatcher([callback])
        self.dispatcher.start()
        self.logged: list[Mapping[str, object]] = []
        self.notified: list[str] = []
        self.reporter = Notes()
        self.source = EventSource(self.dispatcher, self.logged.append, self.reporter, self.notified.append)


def test_a_step_is_submitted_once_it_is_finished_with_the_status_that_follows() -> None:
    """As on a GPU, where losses arrive some steps later, several at once."""
    recorder = Recorder()
    made = Source(recorder)
    source = made.source
    source.step(status(1))
    source.step(status(2))
    source.log(entry(1))
    source.log(entry(2, loss=None))
    source.step(status(3))
    source.log(entry(3))
    source.log({"step": 3, "progress": 0.25, "val_accuracy": 0.75})
    source.log({"step": 2, "rolled_back": True})
    source.log(entry(3))
    source.submit_steps()
    made.dispatcher.submit(EndInfo(Path("run")))
    made.dispatcher.close(30)
    steps = recorder.of(StepInfo)
    assert [info.step for info in steps] == [1, 2, 3, 3]
    assert steps[0] == StepInfo(1, 0.5, 0.25, 1.5, 0.1, 1003.0, 57.0)
    assert isnan(steps[1].loss)
    assert recorder.events[3] == ValidationInfo(3, 0.25, 0.75)
    assert len(made.logged) == 6
    assert recorder.end.run_directory == Path("run")


def test_reports_are_passed_on() -> None:
    made = Source(Recorder())
    made.source.note("a line")
    made.source.phase("scoring")
    assert made.reporter.lines == ["a line"]
    made.dispatcher.close(30)


def test_exceptions_are_notified_in_the_thread_of_the_training() -> None:
    failing = Failing()
    made = Source(failing)
    made.source.log(entry(1))
    made.source.step(status(1))
    failing.has_raised.wait(30)
    made.dispatcher.close(30)
    made.source.step(status(2))
    (line,) = made.notified
    assert line.startswith("on_step of the callback Failing, at step 1, raised ZeroDivisionError")
