"""One training of a search: in this process, on images held in memory, judged on those held out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits, ImageDataset, Origin, stratified_order
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob
from timebox.planning.planner import ScoringLoad, make_plan
from timebox.reporter import SilentReporter, StepStatus
from timebox.run.writer import RunWriter
from timebox.runtime.faults import RecoverableError
from timebox.runtime.torch_state import preserve_torch_state
from timebox.runtime.write_speed import NO_WRITES

# More images tell hardly more; scoring them takes time from training.
MOST_VAL_IMAGES = 2500
# A training diverges where its loss is so many times the first one, over so many steps: one-cycle policies with large
# rates look bad for long, but not as bad as this.
DIVERGED, NUM_LOSSES = 5.0, 10
# In one view: what augmentation when scoring adds is much the same for all recipes, and takes several times as long.
ONE_VIEW = "tta=none"


class DivergedError(Exception):
    """The loss has risen beyond hope."""


@dataclass(frozen=True)
class Measured:
    """What a training came to.

    Attributes:
        accuracy: share of ``num_images`` held-out images that are right.
        recipe: all its fields.
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
        train: images to train on. val: those to judge by.
        source: where they are from; a plan is told in its words.
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
        chosen = val.take(stratified_order(val.labels, source.split_seed)[:MOST_VAL_IMAGES])
        self._division = DataSplits(train, chosen, None, Origin("train"), Origin("val"), None)
        self._source, self._device, self._precision, self._seed = source, device, precision, seed

    def cut(self, num_images: int) -> "Trainer":
        """The same with so many of the training images, each class as often among them as before."""
        train, val = self._division.train, self._division.val
        assert val is not None
        if num_images < len(train):
            train = train.take(np.sort(stratified_order(train.labels, self._source.split_seed)[:num_images]))
        return Trainer(train, val, self._source, self._device, self._precision, self._seed)

    @property
    def num_images(self) -> int:
        """Images trained on."""
        return len(self._division.train)

    @property
    def num_val_images(self) -> int:
        """Images scored."""
        return len(self._division.val or ())

    def measure(self, recipe: str, settings: Sequence[str], repeat: int, budget_seconds: float) -> Measured:
        """Train once within a budget.

        Args:
            repeat: another seed for each.
        Raises:
            DivergedError: where the loss rose beyond hope. UsageError: for a recipe that cannot be, or does not fit.
        """
        deadline = Deadline(budget_seconds)
        request = TrainConfig.of(
            self._source,
            recipe=recipe,
            settings=(*settings, ONE_VIEW),
            seed=self._seed + repeat,
            precision=self._precision,
            thumbnails=False,
        )
        val = self._division.val
        assert val is not None
        with preserve_torch_state(), TemporaryDirectory(prefix="timebox-trial-", ignore_cleanup_errors=True) as folder:
            writer = RunWriter.new(Path(folder) / "run", overwrite=False)
            plan = make_plan(
                recipe,
                request.settings,
                self._division.train,
                ScoringLoad(len(val), 0),
                self._device,
                request.precision,
                deadline,
                None,
                NO_WRITES,
                self._source.data,
            )
            job = TrainingJob.of(request, replace(plan, num_val_images=0), self._division, budget_seconds)
            training = Training(job, writer, deadline, DivergenceGuard())
            with training.checkpointer.wait_on_failure():
                try:
                    trained = training.run()
                except RecoverableError as error:
                    raise DivergedError(str(error)) from error
                (score,) = job.score(trained.model, deadline) or (None,)
                training.checkpointer.wait(deadline.remaining())
        return Measured(
            accuracy=0.0 if score is None else score.accuracy,
            num_images=0 if score is None else len(score.dataset),
            recipe=job.plan.recipe.as_dict(),
            train_images=len(self._division.train),
            steps=trained.num_steps,
            epochs=round(trained.epochs, 3),
            images_per_second=round(trained.images_per_second, 1),
            seconds=round(deadline.elapsed(), 2),
        )


class DivergenceGuard(SilentReporter):
    """Cuts a training short whose loss has risen beyond hope."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def step(self, status: StepStatus) -> None:
        """Raises DivergedError."""
        if isfinite(status.loss):
            self._losses.append(status.loss)
        first, latest = self._losses[:NUM_LOSSES], self._losses[-NUM_LOSSES:]
        if len(self._losses) >= 2 * NUM_LOSSES and median(latest) > DIVERGED * first[0]:
            raise DivergedError(
                f"the loss rose from {first[0]:.3g} to {median(latest):.3g} at {status.progress:.0%} of the training"
            )
