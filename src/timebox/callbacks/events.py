"""The events of a training: one class each, and the method of a callback that receives it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PlanInfo:
    """The training is planned, and about to begin. The first event of a run, received by ``on_plan``.

    Attributes:
        run_directory: where the run will lie in the end; with ``overwrite`` the old run is there until then.
        lines: the choices of the plan and their reasons, as printed.
        recipe: all fields of the recipe, by name.
        budget_seconds: the budget; None where the steps are counted.
        expected_steps: number of steps; an estimate where the clock decides.
    """

    run_directory: Path
    lines: tuple[str, ...]
    recipe: Mapping[str, bool | int | float | str]
    budget_seconds: float | None
    expected_steps: int


@dataclass(frozen=True)
class StepInfo:
    """A training step has finished; received by ``on_step``. Steps that a rollback undid come again.

    Attributes:
        step: number of the step, from 1.
        epoch: passes over the training images after the step, a fraction included.
        progress: share of the schedule that is done after the step, 0...1.
        loss: the training loss of the step; NaN where it was not finite.
        lr: the learning rate of the step.
        images_per_second: throughput of the training so far, validation excluded.
        seconds_left: until the deadline; None without a deadline.
    """

    step: int
    epoch: float
    progress: float
    loss: float
    lr: float
    images_per_second: float
    seconds_left: float | None

    @property
    def curves(self) -> dict[str, float]:
        """The values that trackers draw: ``loss``, ``lr`` and ``images_per_second``."""
        return {"loss": self.loss, "lr": self.lr, "images_per_second": self.images_per_second}


@dataclass(frozen=True)
class ValidationInfo:
    """The averaged model was scored on validation images during the training; received by ``on_validation``.

    Attributes:
        step: number of steps before it.
        progress: share of the schedule that was done, 0...1.
        accuracy: share of the images that are right, 0...1.
    """

    step: int
    progress: float
    accuracy: float


@dataclass(frozen=True)
class CheckpointInfo:
    """A checkpoint was written; received by ``on_checkpoint``.

    Attributes:
        step: number of steps that it holds.
        path: its directory, which the next checkpoint and the end of the training change.
    """

    step: int
    path: Path


@dataclass(frozen=True)
class EndInfo:
    """The run directory is complete, or the training was stopped or failed. The last event, received by ``on_end``.

    Attributes:
        run_directory: where the run lies.
        summary: the content of its summary.json, with ``stopped`` for a run that can be resumed; empty after an error.
        error: the error that ended the training, in words; None where none did.
    """

    run_directory: Path
    summary: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.error is None and not self.summary.get("stopped")


Info = PlanInfo | StepInfo | ValidationInfo | CheckpointInfo | EndInfo
METHODS: dict[type[Info], str] = {
    PlanInfo: "on_plan",
    StepInfo: "on_step",
    ValidationInfo: "on_validation",
    CheckpointInfo: "on_checkpoint",
    EndInfo: "on_end",
}
