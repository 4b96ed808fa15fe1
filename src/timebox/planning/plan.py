"""What a plan holds: what is trained, in which precision, and how the budget is divided."""

from dataclasses import dataclass

import torch

from timebox.recipe import Recipe
from timebox.training.pacer import WARMDOWN_STEPS

NUM_VALIDATIONS = 5


@dataclass(frozen=True)
class Plan:
    """How a budget, or a number of steps, is going to be used.

    Attributes:
        recipe: resolved: no field is left for later.
        threads: that torch computes with, 1 or more.
        num_steps: fixed number of steps; None where the clock decides.
        micro_batch: images computed at once, at most the recipe's batch.
        step_seconds: estimated seconds per step; 0 where no clock is read.
        expected_steps: how many steps that makes.
        scoring_seconds: set aside for scoring after training; infinite where no clock is read.
        saving_seconds: set aside for saving.
        finish_seconds: set aside for saving and leaving.
        num_val_images: images scored at each validation during training, 0 for none.
        scoring_batch: images scored at once.
        lines: what was chosen and why, to be shown.
    """

    recipe: Recipe
    device: torch.device
    threads: int
    precision: str
    num_steps: int | None
    micro_batch: int
    step_seconds: float
    expected_steps: int
    scoring_seconds: float
    saving_seconds: float
    finish_seconds: float
    num_val_images: int
    scoring_batch: int
    lines: tuple[str, ...]

    @property
    def validate_at(self) -> list[float]:
        """Progress after which to validate. The end is left out: it is scored with everything else."""
        return [i / NUM_VALIDATIONS for i in range(1, NUM_VALIDATIONS)] if self.num_val_images else []

    @property
    def reserve_seconds(self) -> float:
        """What a stall must leave before the deadline to be survived: the landing, saving and leaving."""
        return WARMDOWN_STEPS * self.step_seconds + self.finish_seconds
