"""One training job: config, plan, data splits and statistics; its entries in model.json and summary.json."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.builders import MIN_STD
from timebox.clock import Deadline
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits, ImageDataset, LoadedData, channel_statistics
from timebox.data.images.decode import FIT_DESCRIPTIONS
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.scoring import Scorer, SplitScore
from timebox.jobs.context import RunContext
from timebox.jobs.initial_weights import InitialWeights
from timebox.planning.budget import ScoringLoad
from timebox.planning.plan import Plan
from timebox.planning.planner import Hardware, PlanRequest, make_plan
from timebox.run.checkpoint import Checkpoint
from timebox.run.model_config import (
    ImageShape,
    Machine,
    PlanRecord,
    Preprocessing,
    TrainedModelConfig,
    TrainingRequest,
    installed_versions,
)
from timebox.run.summary import BadFile, DataDescription, FinishedSummary
from timebox.runtime.device import device_name
from timebox.runtime.write_speed import NO_WRITES, WriteSpeed
from timebox.training.loop import TrainingResult
from timebox.training.schedule import StepPlan


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """The input of one training.

    Attributes:
        request: the options of the verb.
        mean, std: float32 (C,), of the training images' channels, 0...1.
        budget_seconds: recorded in the run; None where steps are counted.
        data_sha256: of the training images and labels, in order.
        initial: weights to start from; None for random ones, or where a checkpoint is resumed.
        checkpoint: to resume from; None to start at step 0.
        step_plans: learning rate, micro-batch and image size of each step, to replay a run; None to schedule anew.
        is_mixed_environment: whether a part was trained on another machine or with other versions. Such a run cannot be
            replayed.
    """

    request: TrainConfig
    plan: Plan
    data_splits: DataSplits
    mean: torch.Tensor
    std: torch.Tensor
    budget_seconds: float | None
    data_sha256: str
    initial: InitialWeights | None = None
    checkpoint: Checkpoint | None = None
    step_plans: Sequence[StepPlan] | None = None
    is_mixed_environment: bool = False

    @classmethod
    def of(
        cls,
        request: TrainConfig,
        plan: Plan,
        data_splits: DataSplits,
        budget_seconds: float | None,
        initial: InitialWeights | None = None,
    ) -> "TrainingJob":
        """A job with the channel statistics and the hash of its training images."""
        mean, std = channel_statistics(data_splits.train.images)
        spread = torch.tensor(std).clamp_min(MIN_STD)
        digest = sha256_of(data_splits.train)
        return cls(request, plan, data_splits, torch.tensor(mean), spread, budget_seconds, digest, initial)

    def held_out(self) -> dict[str, ImageDataset]:
        """The val and test splits there are, by name."""
        splits = {"val": self.data_splits.val, "test": self.data_splits.test}
        return {name: dataset for name, dataset in splits.items() if dataset is not None}

    def scorer(self, group: ProcessGroup = SINGLE_PROCESS) -> Scorer:
        """Scores this job's models on its device; all ranks of ``group`` together."""
        plan, split_seed = self.plan, self.request.source.split_seed
        return Scorer(self.mean, self.std, plan.device, plan.scoring_batch, split_seed, group)

    def config(self, num_processes: int = 1) -> TrainedModelConfig:
        """model.json of this training, on this machine."""
        request, train = self.request, self.data_splits.train
        return TrainedModelConfig(
            class_names=train.class_names,
            preprocessing=Preprocessing(
                image_shape=cast(ImageShape, train.image_shape),
                mean=tuple(self.mean.tolist()),
                std=tuple(self.std.tolist()),
                resize=FIT_DESCRIPTIONS[self.plan.recipe.image_fit],
            ),
            recipe=self.plan.recipe.as_dict(),
            source=request.source,
            seed=request.seed,
            training=TrainingRequest(
                recipe=request.recipe,
                settings=request.settings,
                precision=request.precision,
                num_steps=request.steps,
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
            source=request.source,
            recipe=plan.recipe.as_dict(),
            command=request.command(self.budget_seconds),
            plan=plan.lines,
            notes=tuple(loaded.notes),
            events=tuple(events),
            bad_files=tuple(BadFile(path=bad.path, reason=bad.reason) for bad in loaded.bad_files),
            versions=installed_versions(),
        )


def plan_training(
    config: TrainConfig,
    data_splits: DataSplits,
    device: torch.device,
    context: RunContext,
    write_speed: WriteSpeed = NO_WRITES,
    initial: InitialWeights | None = None,
) -> Plan:
    """Plan a training within the context's deadline, and report the plan's lines.

    Raises:
        UsageError: for a recipe that does not fit the data. BudgetError: for a budget that is too short.
    """
    num_val, num_test = (len(split or ()) if config.scoring else 0 for split in (data_splits.val, data_splits.test))
    request = PlanRequest(
        config.recipe,
        initial.complete_settings(config.recipe, config.settings) if initial else config.settings,
        data_splits.train,
        ScoringLoad(num_val, num_test, config.scoring),
        Hardware(device, config.precision, context.group),
        config.source.data,
    )
    plan = make_plan(request, context.deadline, config.steps, write_speed)
    for line in plan.lines:
        context.reporter.note(line)
    return plan


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
