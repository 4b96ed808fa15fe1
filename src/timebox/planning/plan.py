"""Plan of a training: resolved recipe, precision, number of steps, and the seconds for each phase."""

from dataclasses import dataclass
from math import inf

import torch

from timebox.planning.forecast import Forecast
from timebox.recipes import Recipe
from timebox.training.pacer import WARMDOWN_STEPS

# The training is divided into this many parts of equal progress, with a validation between two parts.
NUM_VALIDATIONS = 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a training. The defaults are those of a fixed number of steps.

    Attributes:
        recipe: with all fields resolved.
        threads: number of torch's threads to begin with, 1 or more.
        max_threads: largest number of threads that steps may use while the load of the machine changes; None where
            the number stays as it is.
        num_steps: fixed number of steps; None if the deadline ends the training.
        micro_batch: images computed at once, at most the recipe's batch size.
        step_seconds: estimated seconds per step.
        expected_steps: ``num_steps``, or the estimate for the deadline; 0 where no time is left to train, and a
            pretrained classifier has to do.
        scoring_seconds, saving_seconds, finish_seconds: as of :class:`timebox.planning.budget.BudgetSplit`.
        num_val_images: images of each validation during training; 0 for no validation.
        scoring_batch: batch size of inference.
        forecasts: the accuracy to expect with this budget, and with others that were asked for; empty where it is not
            known.
        lines: the choices and their reasons, for the user.
    """

    recipe: Recipe
    device: torch.device
    threads: int
    max_threads: int | None = None
    precision: str
    num_steps: int | None
    micro_batch: int
    step_seconds: float = 0.0
    expected_steps: int
    scoring_seconds: float = inf
    saving_seconds: float = 0.0
    finish_seconds: float = 0.0
    num_val_images: int
    scoring_batch: int
    forecasts: tuple[Forecast, ...] = ()
    lines: tuple[str, ...]

    @property
    def validate_at(self) -> list[float]:
        """Progress, 0...1, after which to validate. The end is not among them, as scoring follows it."""
        return [i / NUM_VALIDATIONS for i in range(1, NUM_VALIDATIONS)] if self.num_val_images else []

    @property
    def closing_seconds(self) -> float:
        """Seconds planned for the report, the end of the process and stalls of the machine."""
        return self.finish_seconds - self.saving_seconds

    @property
    def reserve_seconds(self) -> float:
        """Seconds needed at the end even after a stall: the warmdown of the learning rate, saving and leaving."""
        return WARMDOWN_STEPS * self.step_seconds + self.finish_seconds
