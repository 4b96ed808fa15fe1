"""One training of a trial: in this process, on images in memory, scored on validation images."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import median

import numpy as np
import torch
from msgspec import Struct

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.configs.train import SCRATCH, TrainConfig
from timebox.data import DataSplits, ImageDataset, SplitOrigin, stratified_order
from timebox.files import temporary_directory
from timebox.jobs.context import RunContext
from timebox.jobs.finishing.finisher import score_held_out
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.planning.budget import ScoringLoad
from timebox.planning.planner import make_plan
from timebox.planning.selection import Hardware, PlanRequest
from timebox.progress import SilentReporter, StepStatus
from timebox.run.json_values import Count, RecipeFields, Seconds, Share
from timebox.run.writer import RunWriter
from timebox.runtime.faults import RecoverableError
from timebox.runtime.torch_state import preserve_torch_state
from timebox.runtime.write_speed import NO_WRITES

# More images make the accuracy hardly more exact, and scoring them takes time from training.
MAX_VAL_IMAGES = 2500
# A training has diverged where the median loss of the last 10 steps is above 5 times the first loss. One-cycle
# schedules with a large rate rise for long too, but less.
DIVERGENCE_FACTOR, NUM_LOSSES = 5.0, 10
# Test-time augmentation adds about the same accuracy to all recipes, and takes several times as long.
SCORING_SETTING = "tta=none"


class DivergedError(Exception):
    """The training loss has diverged."""


class TrialResult(Struct, frozen=True):
    """The outcome of one training of a trial.

    Attributes:
        accuracy: share of the scored validation images that are right.
        num_images: number of validation images that were scored.
        recipe: all fields of the recipe, by name.
        train_images: number of training images.
        images_per_second: training images per second.
        seconds: duration of the training and of its scoring.
    """

    accuracy: Share
    num_images: Count
    recipe: RecipeFields
    train_images: Count
    steps: Count
    epochs: float
    images_per_second: Seconds
    seconds: Seconds


@dataclass(frozen=True, eq=False)
class Trainer:
    """Trains recipes on the same images.

    Attributes:
        val_images: at most 2500 of the validation images, stratified by class.
        source: the origin of the images, named in messages.
        seed: of the first training of a recipe.
    """

    train_images: ImageDataset
    val_images: ImageDataset
    source: DataConfig
    device: torch.device
    precision: str
    seed: int

    def __post_init__(self) -> None:
        order = stratified_order(self.val_images.labels, self.source.split_seed)[:MAX_VAL_IMAGES]
        object.__setattr__(self, "val_images", self.val_images.take(order))

    def cut(self, num_images: int) -> "Trainer":
        """A trainer on at most ``num_images`` of the training images, stratified by class."""
        if num_images >= len(self.train_images):
            return self
        order = stratified_order(self.train_images.labels, self.source.split_seed)[:num_images]
        return replace(self, train_images=self.train_images.take(np.sort(order)))

    def train(self, recipe: str, settings: Sequence[str], repeat: int, budget_seconds: float) -> TrialResult:
        """Plan, train and score once, within a budget.

        Args:
            recipe, settings: as of :func:`timebox.train`.
            repeat: added to the seed.
        Raises:
            DivergedError: where the loss diverges. UsageError: for a recipe that is invalid, or does not fit the data.
        """
        deadline = Deadline(budget_seconds)
        settings = (*settings, SCORING_SETTING)
        training_options = {"seed": self.seed + repeat, "precision": self.precision, "thumbnails": False}
        config = TrainConfig.of(self.source, recipe=recipe, settings=settings, init=SCRATCH, **training_options)
        splits = DataSplits(self.train_images, self.val_images, None, SplitOrigin("train"), SplitOrigin("val"), None)
        load, hardware = ScoringLoad(len(self.val_images), 0), Hardware(self.device, self.precision)
        source = self.source.data
        # Trials side by side slow each other down: what they measure holds for none of them alone.
        request = PlanRequest(recipe, settings, self.train_images, load, hardware, source, uses_cache=False)
        with preserve_torch_state(), temporary_directory("timebox-trial-") as folder:
            plan = make_plan(request, deadline, None, NO_WRITES)
            job = TrainingJob(config, replace(plan, num_val_images=0), splits)
            context = RunContext(deadline, DivergenceGuard())
            writer = RunWriter.new(Path(folder) / "run", overwrite=False)
            training = Training(job, context, writer)
            with closing(writer), training.checkpointer.wait_on_failure():
                try:
                    trained = training.run()
                except RecoverableError as error:
                    raise DivergedError(str(error)) from error
                (score,) = score_held_out(job, trained.model, context) or (None,)
                training.checkpointer.wait(deadline.remaining())
        return TrialResult(
            accuracy=score.accuracy if score else 0.0,
            num_images=len(score.dataset) if score else 0,
            recipe=job.plan.recipe.as_dict(),
            train_images=len(self.train_images),
            steps=trained.num_steps,
            epochs=round(trained.epochs, 3),
            images_per_second=round(trained.images_per_second, 1),
            seconds=round(deadline.elapsed(), 2),
        )


class DivergenceGuard(SilentReporter):
    """Stops a training whose loss has diverged."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def step(self, status: StepStatus) -> None:
        """Raises DivergedError."""
        if isfinite(status.loss):
            self._losses.append(status.loss)
        first, latest = self._losses[:NUM_LOSSES], self._losses[-NUM_LOSSES:]
        if len(self._losses) >= 2 * NUM_LOSSES and median(latest) > DIVERGENCE_FACTOR * first[0]:
            raise DivergedError(
                f"the loss rose from {first[0]:.3g} to {median(latest):.3g} at {status.progress:.0%} of the training"
            )
