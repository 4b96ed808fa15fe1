"""What is trained and on what: scoring it, and putting the outcome into words."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from timebox.builders import SMALLEST_STD
from timebox.clock import Deadline
from timebox.data import DataSplits, ImageDataset, LoadedData, channel_statistics, stratified_order
from timebox.data.images.decode import HOW_FITTED
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.calibration import fit_temperature
from timebox.evaluation.inference import predict_probabilities
from timebox.evaluation.metrics import accuracy
from timebox.jobs.config import TrainConfig
from timebox.jobs.data import DataConfig
from timebox.jobs.initial_weights import InitialWeights
from timebox.planning.plan import Plan
from timebox.run.model_config import (
    DataSource,
    ImageShape,
    Machine,
    PlanRecord,
    Preprocessing,
    TrainedModelConfig,
    TrainingRequest,
    device_name,
    installed_versions,
)
from timebox.run.summary import BadFile, DataDescription, FinishedSummary
from timebox.training.loop import TrainingResult

# With less than this share of the planned scoring time left, images are scored in one view.
ONE_VIEW_SHARE = 0.5


@dataclass(frozen=True)
class SplitScore:
    """The first part of a split, in stratified order, and what the model says of it."""

    split: str
    dataset: ImageDataset
    probabilities: NDArray[np.float32]
    num_total: int
    tta: str

    @property
    def accuracy(self) -> float:
        """Share of the scored images that are right."""
        return accuracy(self.probabilities, self.dataset.labels)

    @cached_property
    def temperature(self) -> float:
        """What calibrates the probabilities, see :func:`timebox.evaluation.calibration.fit_temperature`."""
        return fit_temperature(self.probabilities, self.dataset.labels)


@dataclass(frozen=True)
class ScoreSplit:
    """What the processes that train together score next: which split, and with which views."""

    split: str
    tta: str


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """One training: the request, its plan, its data and their statistics (mean, std: float32 (C,)).

    Attributes:
        data_sha256: of the training images and labels, in order.
        initial: weights to begin with; None for random ones, and where a checkpoint has others.
    """

    request: TrainConfig
    plan: Plan
    data_splits: DataSplits
    mean: torch.Tensor
    std: torch.Tensor
    budget_seconds: float | None
    data_sha256: str
    initial: InitialWeights | None = None

    @classmethod
    def of(
        cls,
        request: TrainConfig,
        plan: Plan,
        data_splits: DataSplits,
        budget_seconds: float | None,
        initial: InitialWeights | None = None,
    ) -> "TrainingJob":
        """A job on these data: measures their statistics."""
        mean, std = channel_statistics(data_splits.train.images)
        spread = torch.tensor(std).clamp_min(SMALLEST_STD)
        digest = sha256_of(data_splits.train)
        return cls(request, plan, data_splits, torch.tensor(mean), spread, budget_seconds, digest, initial)

    def score(self, model: nn.Module, deadline: Deadline, group: ProcessGroup = SINGLE_PROCESS) -> list[SplitScore]:
        """Score validation and test images, as many as the time set aside allows, each split getting its share.

        Where time has run short, fewer images are scored; then each in one view; then none of the test images, and
        last none at all. A request without scoring leaves it all to others. Several processes share the images; this
        one leads them.
        """
        present = list(self.held_out().items()) if self.request.scoring else []
        seconds_left = min(self.plan.scoring_seconds, deadline.remaining() - self.plan.finish_seconds)
        short = seconds_left < ONE_VIEW_SHARE * self.plan.scoring_seconds < float("inf")
        scoring_ends = deadline.elapsed() + seconds_left
        scores = []
        for position, (name, dataset) in enumerate(present):
            seconds = scoring_ends - deadline.elapsed()
            if seconds > 0:
                until = deadline.elapsed() + seconds * len(dataset) / sum(len(part) for _, part in present[position:])
                tta = "none" if short else self.plan.recipe.tta
                scores.append(self._scored(name, dataset, model, tta, TimeLimit(deadline, until), group))
        return scores

    def held_out(self) -> dict[str, ImageDataset]:
        splits = {"val": self.data_splits.val, "test": self.data_splits.test}
        return {name: dataset for name, dataset in splits.items() if dataset is not None}

    def _scored(
        self, name: str, dataset: ImageDataset, model: nn.Module, tta: str, stop: "TimeLimit", group: ProcessGroup
    ) -> SplitScore:
        """Score images in an order whose every beginning is stratified."""
        group.broadcast(ScoreSplit(name, tta))
        ordered = self.ordered(dataset)
        probabilities = predict_probabilities(
            model,
            ordered.images,
            self.mean,
            self.std,
            tta=tta,
            device=self.plan.device,
            stop=stop,
            batch_size=self.plan.scoring_batch,
            group=group,
        )
        return SplitScore(name, ordered.take(np.arange(len(probabilities))), probabilities, len(dataset), tta)

    def config(self, num_processes: int = 1) -> TrainedModelConfig:
        """model.json of this training, on this machine."""
        request, train = self.request, self.data_splits.train
        return TrainedModelConfig(
            class_names=train.class_names,
            preprocessing=Preprocessing(
                image_shape=cast(ImageShape, train.image_shape),
                mean=tuple(self.mean.tolist()),
                std=tuple(self.std.tolist()),
                resize=HOW_FITTED[self.plan.recipe.image_fit],
            ),
            recipe=self.plan.recipe.as_dict(),
            source=_data_source(request.source),
            seed=request.seed,
            training=TrainingRequest(
                recipe=request.recipe,
                settings=request.settings,
                precision=request.precision,
                num_steps=request.num_steps,
                scoring=request.scoring,
                thumbnails=request.thumbnails,
                init=request.init,
                init_sha256=self.initial.sha256 if self.initial else None,
                budget_seconds=self.budget_seconds,
                data_sha256=self.data_sha256,
            ),
            plan=PlanRecord.of(self.plan),
            machine=Machine.current(self.plan.device, num_processes),
            versions=installed_versions(),
        )

    def summary(
        self,
        loaded: LoadedData,
        trained: TrainingResult,
        scores: list[SplitScore],
        events: list[str],
        deadline: Deadline,
    ) -> FinishedSummary:
        """summary.json of this training, without what is known only when the run directory is complete."""
        by_split, held_out = {score.split: score for score in scores}, self.held_out()
        val, test = by_split.get("val"), by_split.get("test")
        plan, request, train = self.plan, self.request, self.data_splits.train
        phases = deadline.phases_so_far()
        return FinishedSummary(
            val_accuracy=val.accuracy if val else None,
            test_accuracy=test.accuracy if test else None,
            val_images=len(val.dataset) if val else 0,
            test_images=len(test.dataset) if test else 0,
            val_images_total=len(held_out.get("val", ())),
            test_images_total=len(held_out.get("test", ())),
            temperature=val.temperature if val else None,
            tta=scores[-1].tta if scores else plan.recipe.tta,
            budget_seconds=deadline.budget_seconds,
            elapsed_seconds=round(sum(phases.values()), 3),
            reserve_seconds=round(plan.reserve_seconds, 3),
            download_seconds=round(loaded.download_seconds, 3),
            phases={name: round(seconds, 3) for name, seconds in phases.items()},
            steps=trained.num_steps,
            epochs=round(trained.epochs, 3),
            images_per_second=round(trained.images_per_second, 1),
            final_lr=trained.final_lr,
            train_images=len(train),
            num_classes=train.num_classes,
            data=DataDescription(name=loaded.name, format=loaded.format, why=loaded.why),
            device=device_name(plan.device),
            threads=torch.get_num_threads(),
            precision=plan.precision,
            seed=request.seed,
            source=_data_source(request.source),
            recipe=plan.recipe.as_dict(),
            command=request.command(self.budget_seconds),
            plan=plan.lines,
            notes=tuple(loaded.notes),
            events=tuple(events),
            bad_files=tuple(BadFile(path=bad.path, reason=bad.reason) for bad in loaded.bad_files),
            versions=installed_versions(),
        )

    def ordered(self, dataset: ImageDataset, num: int | None = None) -> ImageDataset:
        """In an order whose every beginning is stratified, so that scoring may stop anywhere; the first `num` of it."""
        return dataset.take(stratified_order(dataset.labels, self.request.source.split_seed)[:num])


class TimeLimit:
    """Says when to stop: when work like the longest piece so far would last beyond ``until``, in seconds elapsed."""

    def __init__(self, deadline: Deadline, until: float) -> None:
        self._deadline, self._until = deadline, until
        self._last, self._longest = deadline.elapsed(), 0.0

    def __call__(self) -> bool:
        moment = self._deadline.elapsed()
        self._longest = max(self._longest, moment - self._last)
        self._last = moment
        return moment + self._longest > self._until


@dataclass(frozen=True, eq=False)
class ValidationAccuracy:
    """Measures the accuracy of a model on some validation images, in one view; all processes of a group together."""

    dataset: ImageDataset
    mean: torch.Tensor
    std: torch.Tensor
    device: torch.device
    batch_size: int
    group: ProcessGroup

    def __call__(self, model: nn.Module) -> float:
        probabilities = predict_probabilities(
            model,
            self.dataset.images,
            self.mean,
            self.std,
            tta="none",
            device=self.device,
            batch_size=self.batch_size,
            group=self.group,
        )
        return accuracy(probabilities, self.dataset.labels)


def sha256_of(dataset: ImageDataset) -> str:
    """Of images and labels, in order."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.images).data)
    digest.update(np.ascontiguousarray(dataset.labels).data)
    return digest.hexdigest()


def prediction_columns(scores: list[SplitScore]) -> dict[str, NDArray[np.generic]]:
    """The columns of predictions.npz, a row for each scored image."""
    return {
        "split": np.concatenate([np.full(len(score.dataset), score.split) for score in scores]),
        "id": np.array([name for score in scores for name in score.dataset.ids]),
        "label": np.concatenate([score.dataset.labels for score in scores]),
        "probabilities": np.concatenate([score.probabilities for score in scores]),
    }


def _data_source(source: DataConfig) -> DataSource:
    return DataSource(
        data=source.data,
        val=source.val,
        test=source.test,
        train_limit=source.train_limit,
        test_limit=source.test_limit,
        split_seed=source.split_seed,
        coarse=source.coarse,
        group_by=source.group_by,
    )
