"""A callback that keeps its events, and a reporter that keeps its notes."""

import threading
from collections.abc import Callable
from typing import TypeVar

from timebox.callbacks.events import CheckpointInfo, EndInfo, Info, PlanInfo, StepInfo, ValidationInfo
from timebox.progress import SilentReporter

Kind = TypeVar("Kind", bound=Info)


class Recorder:
    """Keeps every event, and the name of the thread that brought it."""

    def __init__(self) -> None:
        self.events: list[Info] = []
        self.threads: set[str] = set()

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The events of a kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def end(self) -> EndInfo:
        """The only EndInfo."""
        (end,) = self.of(EndInfo)
        return end

    def _keep(self, info: Info) -> None:
        self.threads.add(threading.current_thread().name)
        self.events.append(info)

    def on_plan(self, info: PlanInfo) -> None:
        self._keep(info)

    def on_step(self, info: StepInfo) -> None:
        self._keep(info)

    def on_validation(self, info: ValidationInfo) -> None:
        self._keep(info)

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        self._keep(info)

    def on_end(self, info: EndInfo) -> None:
        self._keep(info)


class Failing(Recorder):
    """Raises in on_step and on_end. ``has_raised`` is set before it raises for the ``num_to_wait_for``-th time."""

    def __init__(self, num_to_wait_for: int = 1) -> None:
        super().__init__()
        self.has_raised = threading.Event()
        self._num_to_wait_for = num_to_wait_for

    def on_step(self, info: StepInfo) -> None:
        super().on_step(info)
        if len(self.of(StepInfo)) == self._num_to_wait_for:
            self.has_raised.set()
        raise ZeroDivisionError(f"password=secret\nin step {info.step}")

    def on_plan(self, info: PlanInfo) -> None:
        """Ignored."""

    def on_end(self, info: EndInfo) -> None:
        super().on_end(info)
        raise SystemExit(3)


class Notes(SilentReporter):
    """Keeps the notes. ``before_scoring`` is called in the training's thread, and waited for."""

    def __init__(self, before_scoring: Callable[[], object] = lambda: None) -> None:
        self.lines: list[str] = []
        self._before_scoring = before_scoring

    def phase(self, name: str) -> None:
        if name == "scoring":
            self._before_scoring()

    def note(self, text: str) -> None:
        self.lines.append(text)

    def about_callbacks(self) -> list[str]:
        """The notes on callbacks."""
        return [line for line in self.lines if "callback" in line]


def step_info(step: int = 1, loss: float = 1.0) -> StepInfo:
    return StepInfo(step, 0.1, 0.1, loss, 0.01, 100.0, None)
