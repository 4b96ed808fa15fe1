"""Reporters: receive phases, notes and steps of a training, for display. They never change its result."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepStatus:
    """Status of a training when a step has been issued to the device.

    Attributes:
        step: number of the step, from 1.
        total_steps: expected number of steps; an estimate where the clock decides.
        epoch: passes over the training images, a fraction included.
        progress: position in the schedule, 0...1.
        loss: of the latest finished step; NaN before the first.
        lr, momentum: of this step.
        images_per_second: throughput of the training so far, validation excluded.
        seconds_left: until the deadline; None without a deadline.
        val_accuracy: of the latest validation, 0...1; None before the first.
    """

    step: int
    total_steps: int
    epoch: float
    progress: float
    loss: float
    lr: float
    momentum: float
    images_per_second: float
    seconds_left: float | None
    val_accuracy: float | None


class ProgressNote(str):
    """A note on how far something has come: where lines can be redrawn, the next note or phase takes its place."""

    __slots__ = ()


class Reporter(Protocol):
    """Receives the events of a training. No method may block."""

    def phase(self, name: str) -> None:
        """A phase begins, such as reading, planning, training, scoring or saving."""

    def note(self, text: str) -> None:
        """One line of text for the user: a line of the plan, a warning, or a :class:`ProgressNote`."""

    def step(self, status: StepStatus) -> None:
        """A step has been issued to the device."""


class SilentReporter:
    """Ignores all events."""

    def phase(self, name: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def step(self, status: StepStatus) -> None:
        """Ignored."""
