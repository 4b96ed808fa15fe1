"""One training of a trial: in this process, on images in memory, scored on validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from timebox.clock import Deadline
from timebox.data import DataSplits, ImageDataset, Origin, stratified_order
from timebox.jobs.config import TrainConfig
from timebox.jobs.data import DataConfig
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.planning.planner import ScoringLoad, make_plan
from timebox.reporter import SilentReporter, StepStatus
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


@dataclass(frozen=True)
class TrialResult:
    """The outcome of one training; a value of ``trainings`` in trials.jsonl.

    Attributes:
        accuracy: share of ``num_images`` validation images classified correctly, 0...1.
        recipe: all fields of the recipe that was trained.
        train_images: number of training images.
    """

    accuracy: float
    num_images: int
    recipe: Mapping[str, object]
    train_images: int
    steps: int
    epochs: float
    images_per_second: float
    seconds: float


class Trainer:
    """Trains recipes on the same images.

    Args:
        train, val: training and validation images; of the latter at most 2500 are used, stratified by class.
        source: the origin of the images, named in messages.
    """

    def __init__(
        self,
        train: ImageDataset,
        val: ImageDataset,
        source: DataConfig,
        device: torch.device,
        precision: str,
        seed: int,
    ) -> None:
        val = val.take(stratified_order(val.labels, source.split_seed)[:MAX_VAL_IMAGES])
        self._train, self._val = train, val
        self._source, self._device, self._precision, self._seed = source, device, precision, seed

    def cut(self, num_images: int) -> "Trainer":
        """A trainer on at most so many of the training images, stratified by class."""
        train = self._train
        if num_images < len(train):
            train = train.take(np.sort(stratified_order(train.labels, self._source.split_seed)[:num_images]))
        return Trainer(train, self._val, self._source, self._device, self._precision, self._seed)

    @property
    def num_images(self) -> int:
        """Number of training images."""
        return len(self._train)

    @property
    def num_val_images(self) -> int:
        """Number of validation images."""
        return len(self._val)

    def train(self, recipe: str, settings: Sequence[str], repeat: int, budget_seconds: float) -> TrialResult:
        """Plan, train and score once, within a budget.

        Args:
            recipe, settings: as of :func:`timebox.train`.
            repeat: added to the seed.
        Raises:
            DivergedError: where the loss diverges. UsageError: for a recipe that is invalid, or does not fit the data.
        """
        deadline = Deadline(budget_seconds)
        config = TrainConfig(
            self._source, recipe, (*settings, SCORING_SETTING), self._seed + repeat, self._precision, None,
            thumbnails=False,
        )  # fmt: skip
        data_splits = DataSplits(self._train, self._val, None, Origin("train"), Origin("val"), None)
        with preserve_torch_state(), TemporaryDirectory(prefix="timebox-trial-", ignore_cleanup_errors=True) as folder:
            writer = RunWriter.new(Path(folder) / "run", overwrite=False)
            plan = make_plan(
                recipe,
                config.settings,
                self._train,
                ScoringLoad(len(self._val), 0),
                self._device,
                config.precision,
                deadline,
                None,
                NO_WRITES,
                self._source.data,
            )
            job = TrainingJob.of(config, replace(plan, num_val_images=0), data_splits, budget_seconds)
            training = Training(job, writer, deadline, DivergenceGuard())
            with training.checkpointer.wait_on_failure():
                try:
                    trained = training.run()
                except RecoverableError as error:
                    raise DivergedError(str(error)) from error
                (score,) = job.score(trained.model, deadline) or (None,)
                training.checkpointer.wait(deadline.remaining())
        return TrialResult(
            accuracy=0.0 if score is None else score.accuracy,
            num_images=0 if score is None else len(score.dataset),
            recipe=job.plan.recipe.as_dict(),
            train_images=len(self._train),
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
