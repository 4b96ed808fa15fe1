"""Makes events for callbacks of what a training logs and reports."""

from collections.abc import Callable, Mapping
from math import nan
from typing import Any

from timebox.callbacks.dispatcher import CallbackDispatcher
from timebox.callbacks.events import StepInfo, ValidationInfo
from timebox.progress import Reporter, StepStatus


class EventSource:
    """Stands between the monitor of a training and its log and reporter, and passes everything on to them.

    The loss of a step is logged once the device has finished it, and so is an event of the step submitted: with the
    first status that follows. It is a :class:`timebox.Reporter`.

    Args:
        log: of the training, for the lines of metrics.jsonl.
        notify: receives a line for each exception of a callback, in the thread of the training.
    """

    def __init__(
        self,
        dispatcher: CallbackDispatcher,
        log: Callable[[Mapping[str, object]], None],
        reporter: Reporter,
        notify: Callable[[str], None],
    ) -> None:
        self._dispatcher, self._log, self._reporter, self._notify = dispatcher, log, reporter, notify
        self._finished: list[Mapping[str, Any]] = []
        self._images_per_second = 0.0
        self._seconds_left: float | None = None

    def log(self, entry: Mapping[str, Any]) -> None:
        """Log a line of metrics.jsonl."""
        self._log(entry)
        if "loss" in entry:
            self._finished.append(entry)
        elif "val_accuracy" in entry:
            self.submit_steps()
            info = ValidationInfo(entry["step"], entry["progress"], entry["val_accuracy"])
            self._dispatcher.submit(info)

    def phase(self, name: str) -> None:
        """A phase begins."""
        self._reporter.phase(name)

    def note(self, text: str) -> None:
        """A line for the user."""
        self._reporter.note(text)

    def step(self, status: StepStatus) -> None:
        """A step has been issued to the device."""
        self._reporter.step(status)
        self._images_per_second, self._seconds_left = status.images_per_second, status.seconds_left
        self.submit_steps()
        for line in self._dispatcher.failures():
            self._notify(line)

    def submit_steps(self) -> None:
        """Submit an event for each step that has finished since the last call."""
        for entry in self._finished:
            self._dispatcher.submit(
                StepInfo(
                    step=entry["step"],
                    epoch=entry["epoch"],
                    progress=entry["progress"],
                    loss=nan if entry["loss"] is None else entry["loss"],
                    lr=entry["lr"],
                    images_per_second=self._images_per_second,
                    seconds_left=self._seconds_left,
                )
            )
        self._finished.clear()
