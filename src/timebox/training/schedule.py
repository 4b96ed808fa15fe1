"""Schedule: learning rate, momentum and micro-batch of each step, from the recipe or from a recorded training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from timebox.errors import RunError
from timebox.optim.schedules import one_cycle, piecewise_linear, triangular
from timebox.recipes import Recipe
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.runtime.thread_tuner import ThreadTuner
from timebox.training.pacer import Pacer, StepPacer

# A longer forward and backward pass is split: Python handles signals between micro-batches only.
MAX_MICRO_BATCH_SECONDS = 1.0
# Factor of the learning rate after each rollback.
ROLLBACK_LR_FACTOR = 0.5
# The warmdown begins where the learning rate falls below this share of its maximum for good.
WARMDOWN_LR_SHARE = 0.1


@dataclass(frozen=True)
class StepPlan:
    """Settings of one step; ``progress``, 0...1, is the position in the schedule at its end.

    ``threads`` is the number of torch's threads, None to leave it as it is.
    """

    progress: float
    lr: float
    momentum: float
    micro_batch: int
    threads: int | None = None


class Schedule(Protocol):
    """Plans each step. Its pacer decides how far a step advances the progress.

    Attributes:
        pacer: that of the main rank, or one without steps on a worker rank.
        lr_factor: factor of the recipe's learning rates, above 0, at most 1.
        micro_batch: images per forward and backward pass, of the step planned last.
    """

    pacer: Pacer
    lr_factor: float

    @property
    def micro_batch(self) -> int: ...

    @property
    def steps_left(self) -> int:
        """Steps still to come, as far as is known."""

    def next(self, num_unfinished: int) -> StepPlan | None:
        """Plan the next step; None at the end of the schedule. See :meth:`Pacer.next`."""

    def rewind(self, step: int, progress: float) -> None:
        """Continue from where the schedule stood after ``step`` steps."""

    def lower_lr(self) -> None:
        """Multiply all later learning rates by ``ROLLBACK_LR_FACTOR``."""

    def lower_micro_batch(self, micro_batch: int) -> None:
        """Use a smaller micro-batch in all later steps."""


class PacedSchedule:
    """The recipe's learning rate and momentum at the progress that a pacer decides.

    Args:
        thread_tuner: decides the number of threads of each step; None to leave it as it is.
    """

    def __init__(
        self,
        pacer: Pacer,
        recipe: Recipe,
        micro_batch: int,
        num_ranks: int = 1,
        thread_tuner: ThreadTuner | None = None,
    ) -> None:
        self.pacer, self.micro_batch, self.lr_factor = pacer, micro_batch, 1.0
        self._thread_tuner = thread_tuner
        self._recipe = recipe
        self._images_per_rank = recipe.batch_size * recipe.ensemble_size / num_ranks
        self.rewind = pacer.rewind

    @property
    def steps_left(self) -> int:
        return self.pacer.steps_left

    def next(self, num_unfinished: int) -> StepPlan | None:
        progress = self.pacer.next(num_unfinished)
        if progress is None:
            return None
        if self.pacer.step_seconds * self.micro_batch / self._images_per_rank > MAX_MICRO_BATCH_SECONDS:
            self.micro_batch = smaller_micro_batch(self.micro_batch, self._recipe.ghost_size) or self.micro_batch
        lr, momentum = lr_and_momentum_at(self._recipe, progress)
        threads = self._thread_tuner.next(self.steps_left) if self._thread_tuner else None
        return StepPlan(progress, lr * self.lr_factor, momentum, self.micro_batch, threads)

    def lower_lr(self) -> None:
        self.lr_factor *= ROLLBACK_LR_FACTOR

    def lower_micro_batch(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch


class ReplaySchedule:
    """The step plans of a recorded training, in order. Steps that a rollback undid are not among them."""

    lr_factor = 1.0

    def __init__(self, step_plans: Sequence[StepPlan]) -> None:
        self._step_plans = step_plans
        self.pacer: Pacer = StepPacer(len(step_plans))
        self.rewind = self.pacer.rewind

    @property
    def steps_left(self) -> int:
        return self.pacer.steps_left

    @property
    def micro_batch(self) -> int:
        return self._step_plans[max(self._num_planned - 1, 0)].micro_batch

    def next(self, num_unfinished: int) -> StepPlan | None:
        if self.pacer.next(num_unfinished) is None:
            return None
        return self._step_plans[self._num_planned - 1]

    def lower_lr(self) -> None:
        raise RunError("a step of the replay failed that did not fail in the run: the replay differs from the run")

    def lower_micro_batch(self, micro_batch: int) -> None:
        raise RunError("memory ran out in the replay but not in the run: the replay differs from the run")

    @property
    def _num_planned(self) -> int:
        return len(self._step_plans) - self.pacer.steps_left


def lr_and_momentum_at(recipe: Recipe, progress: float) -> tuple[float, float]:
    """The recipe's learning rate and momentum at a progress of 0...1.

    Less momentum keeps the training stable at large learning rates (Smith, arXiv 1803.09820, section 4.3), so momentum
    is lowest where the learning rate is highest. With the piecewise and constant policies it is constant.
    """
    peak, low, high = recipe.max_lr, recipe.min_momentum, recipe.max_momentum
    start, end, knots = peak * recipe.start_fraction, peak * recipe.end_fraction, (recipe.peak_at, recipe.down_at)
    if recipe.policy == "one_cycle":
        return one_cycle(progress, start, peak, end, *knots), one_cycle(progress, high, low, high, *knots)
    if recipe.policy == "triangular":
        cycles = recipe.num_cycles
        return triangular(progress, start, peak, cycles), triangular(progress, high, low, cycles)
    if recipe.policy == "piecewise":
        return piecewise_linear(progress, (0.0, *knots), (start, peak, end)), high
    return peak, high


def warmdown_start(recipe: Recipe, resolution: int = 1000) -> float:
    """Progress from which the learning rate stays below a tenth of its maximum; 1 where it never does."""
    for point in range(resolution, -1, -1):
        if lr_and_momentum_at(recipe, point / resolution)[0] > WARMDOWN_LR_SHARE * recipe.max_lr:
            return min(1.0, (point + 1) / resolution)
    return 0.0
