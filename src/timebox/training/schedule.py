"""How each step is taken: decided as the training goes, or as a recorded training decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from timebox.errors import RunError
from timebox.optim import LRSchedule
from timebox.recipe import Recipe
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.training.pacer import Pacer

# A step of more seconds is run in parts, so that signals are heard between them.
MAX_MICRO_BATCH_SECONDS = 1.0
# The rate is multiplied by this when the numbers went wrong.
ROLLBACK_LR_FACTOR = 0.5
# The landing begins where the rate falls below this share of its peak for good.
WARMDOWN_LR_SHARE = 0.1


@dataclass(frozen=True)
class StepPlan:
    """One step: the progress at which it ends, its rates, and how many images are computed at once."""

    progress: float
    lr: float
    momentum: float
    micro_batch: int


class Schedule(Protocol):
    """Decides how each step is taken."""

    lr_factor: float
    micro_batch: int

    def next(self, num_unfinished: int) -> StepPlan | None:
        """The next step; None when the schedule is at its end."""

    def lower_lr(self) -> None:
        """Lower the rate for good: the numbers went wrong."""

    def rewind(self, step: int, progress: float) -> None:
        """Go on from where the schedule stood after ``step`` steps."""

    def finished(self, num_steps: int) -> None:
        """``num_steps`` more steps have been finished by the device."""

    def paused(self) -> None:
        """The time since the last finished step went into something else than training."""

    @property
    def step_seconds(self) -> float:
        """Seconds one step takes; 0 where no clock is read."""

    @property
    def steps_left(self) -> int:
        """How many steps are still to come, as far as is known."""


class PacedSchedule:
    """The recipe's schedule at the pacer's pace.

    Args:
        micro_batch: images computed at once, at most the batch.
        num_processes: that share a batch.
    """

    def __init__(
        self, pacer: Pacer, recipe: Recipe, micro_batch: int, lr_factor: float = 1.0, num_processes: int = 1
    ) -> None:
        self._pacer, self._recipe, self._num_processes = pacer, recipe, num_processes
        self.micro_batch, self.lr_factor = micro_batch, lr_factor
        self.finished, self.paused, self.rewind = pacer.finished, pacer.paused, pacer.rewind

    def next(self, num_unfinished: int) -> StepPlan | None:
        progress = self._pacer.next(num_unfinished)
        if progress is None:
            return None
        self._limit_micro_batch()
        lr, momentum = lr_and_momentum_at(self._recipe, progress)
        return StepPlan(progress, lr * self.lr_factor, momentum, self.micro_batch)

    def lower_lr(self) -> None:
        self.lr_factor *= ROLLBACK_LR_FACTOR

    @property
    def step_seconds(self) -> float:
        return self._pacer.step_seconds

    @property
    def steps_left(self) -> int:
        return self._pacer.steps_left

    def _limit_micro_batch(self) -> None:
        computed = self._recipe.batch_size * self._recipe.ensemble_size / self._num_processes
        seconds = self._pacer.step_seconds * self.micro_batch / computed
        if seconds > MAX_MICRO_BATCH_SECONDS:
            self.micro_batch = smaller_micro_batch(self.micro_batch, self._recipe.ghost_size) or self.micro_batch


class ReplaySchedule:
    """The decisions of a training that was, taken again. What went wrong there is not in them."""

    lr_factor = 1.0
    step_seconds = 0.0

    def __init__(self, step_plans: Sequence[StepPlan]) -> None:
        self._decisions = step_plans
        self._issued = 0

    @property
    def micro_batch(self) -> int:
        """As the latest step was taken."""
        return self._decisions[max(self._issued - 1, 0)].micro_batch

    @micro_batch.setter
    def micro_batch(self, size: int) -> None:
        raise RunError("memory ran out in the replay where it did not in the run: the two are not alike")

    def next(self, num_unfinished: int) -> StepPlan | None:
        if self._issued == len(self._decisions):
            return None
        self._issued += 1
        return self._decisions[self._issued - 1]

    def lower_lr(self) -> None:
        raise RunError("the replay went wrong where the run did not: the two are not alike")

    def rewind(self, step: int, progress: float) -> None:
        self._issued = step

    def finished(self, num_steps: int) -> None:
        """Nothing to learn from it."""

    def paused(self) -> None:
        """Nothing to leave out."""

    @property
    def steps_left(self) -> int:
        return len(self._decisions) - self._issued


def lr_and_momentum_at(recipe: Recipe, progress: float) -> tuple[float, float]:
    """The recipe's learning rate and momentum at a progress of 0...1."""
    schedule = LRSchedule(
        policy=recipe.policy,
        max_lr=recipe.max_lr,
        start_fraction=recipe.start_fraction,
        end_fraction=recipe.end_fraction,
        peak_at=recipe.peak_at,
        down_at=recipe.down_at,
        num_cycles=recipe.num_cycles,
        max_momentum=recipe.max_momentum,
        min_momentum=recipe.min_momentum,
    )
    return schedule.lr(progress), schedule.momentum(progress)


def warmdown_start(recipe: Recipe, resolution: int = 1000) -> float:
    """Progress at which the rate falls below a tenth of its peak for good; 1 where it never does."""
    for point in range(resolution, -1, -1):
        if lr_and_momentum_at(recipe, point / resolution)[0] > WARMDOWN_LR_SHARE * recipe.max_lr:
            return min(1.0, (point + 1) / resolution)
    return 0.0
