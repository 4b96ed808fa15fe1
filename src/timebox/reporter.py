"""What a training tells whoever watches it. Watching never changes what is computed."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepStatus:
    """One step of the training, as far as it is known while the device is still at work.

    Attributes:
        total_steps: how many there will be; an estimate where the clock decides.
        progress: position in the schedule, 0...1.
        loss: of the latest finished step, NaN before the first one.
        seconds_left: until the deadline; None without one.
        val_accuracy: the latest, None before the first.
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


class Reporter(Protocol):
    """Receives the course of a training. Every method must return at once."""

    def phase(self, name: str) -> None:
        """A phase begins: reading, planning, training, scoring, saving."""

    def note(self, text: str) -> None:
        """One line to tell the user: a line of the plan, or a warning."""

    def step(self, status: StepStatus) -> None:
        """A step has been issued."""


class SilentReporter:
    """Says nothing."""

    def phase(self, name: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""

    def step(self, status: StepStatus) -> None:
        """Ignored."""
