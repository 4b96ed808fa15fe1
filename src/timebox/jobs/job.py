"""One training job: config, plan and data; planning it, and its model.json."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch

from timebox.builders import MIN_STD
from timebox.configs.train import TrainConfig
from timebox.custom import code_records
from timebox.data import DataSplits, ImageDataset, channel_statistics
from timebox.data.device.augment import ChannelStatistics
from timebox.data.images.decode import FIT_DESCRIPTIONS
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.scoring import Scorer
from timebox.jobs.context import RunContext
from timebox.jobs.initial_weights import InitialWeights
from timebox.jobs.pretrained import PretrainedBranch
from timebox.planning.budget import ScoringLoad
from timebox.planning.plan import Plan
from timebox.planning.planner import make_plan
from timebox.planning.selection import Hardware, PlanRequest
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
from timebox.runtime.write_speed import NO_WRITES, WriteSpeed
from timebox.training.schedule import StepPlan


@dataclass(frozen=True, eq=False)
class TrainingJob:
    """The input of one training.

    Attributes:
        initial: weights to start from; None for random ones, or where a checkpoint is resumed.
        pretrained: the classifier to blend with the network; None for none.
        checkpoint: to resume from; None to start at step 0.
        step_plans: the settings of each step, to replay a run; None to schedule anew.
        is_mixed_environment: whether a part was trained on another machine or with other versions. Such a run cannot be
            replayed.
    """

    config: TrainConfig
    plan: Plan
    data_splits: DataSplits
    initial: InitialWeights | None = None
    pretrained: PretrainedBranch | None = None
    checkpoint: Checkpoint | None = None
    step_plans: Sequence[StepPlan] | None = None
    is_mixed_environment: bool = False

    @cached_property
    def statistics(self) -> ChannelStatistics:
        """Of the training images, on the CPU; no standard deviation is below ``MIN_STD``."""
        mean, std = channel_statistics(self.data_splits.train.images)
        return ChannelStatistics(torch.tensor(mean), torch.tensor(std).clamp_min(MIN_STD))

    @cached_property
    def data_sha256(self) -> str:
        """Of the training images and labels, in order."""
        return sha256_of(self.data_splits.train)

    @property
    def held_out(self) -> dict[str, ImageDataset]:
        """The val and test splits there are, by name."""
        splits = {"val": self.data_splits.val, "test": self.data_splits.test}
        return {name: dataset for name, dataset in splits.items() if dataset is not None}

    def scorer(self, group: ProcessGroup = SINGLE_PROCESS) -> Scorer:
        """Scores this job's models on its device; all ranks of ``group`` together."""
        mean, std, plan = self.statistics.mean, self.statistics.std, self.plan
        return Scorer(mean, std, plan.device, plan.scoring_batch, self.config.split_seed, group)

    def model_config(self, context: RunContext) -> TrainedModelConfig:
        """model.json of this training, on this machine."""
        train = self.data_splits.train
        return TrainedModelConfig(
            class_names=train.class_names,
            preprocessing=Preprocessing(
                image_shape=cast(ImageShape, train.image_shape),
                mean=tuple(self.statistics.mean.tolist()),
                std=tuple(self.statistics.std.tolist()),
                resize=FIT_DESCRIPTIONS[self.plan.recipe.image_fit],
                white_16bit=self.data_splits.white_16bit,
            ),
            recipe=self.plan.recipe.as_dict(),
            pretrained=self.pretrained.record if self.pretrained else None,
            code=code_records(self.plan.recipe.as_dict()),
            source=self.config.source,
            seed=self.config.seed,
            training=TrainingRequest.of(
                self.config,
                init_sha256=self.initial.sha256 if self.initial else None,
                budget_seconds=context.deadline.budget_seconds,
                data_sha256=self.data_sha256,
                part_read=self.data_splits.part,
            ),
            plan=PlanRecord.of(self.plan),
            machine=Machine.current(self.plan.device, context.group.size),
            versions=installed_versions(),
        )


def plan_request(
    config: TrainConfig,
    data_splits: DataSplits,
    device: torch.device,
    group: ProcessGroup = SINGLE_PROCESS,
    initial: InitialWeights | None = None,
) -> PlanRequest:
    """The request to plan a training, without a forecast of its accuracy."""
    num_val, num_test = (len(split or ()) if config.scoring else 0 for split in (data_splits.val, data_splits.test))
    return PlanRequest(
        config.recipe,
        initial.complete_settings(config.recipe, config.settings) if initial else config.settings,
        data_splits.train,
        ScoringLoad(num_val, num_test, config.scoring),
        Hardware(device, config.precision, group),
        config.source.data,
        config.cache,
    )


def plan_training(
    request: PlanRequest,
    context: RunContext,
    num_steps: int | None = None,
    write_speed: WriteSpeed = NO_WRITES,
    first_lines: tuple[str, ...] = (),
) -> Plan:
    """Plan a training within the context's deadline, or for a number of steps, and report the plan's lines.

    Args:
        first_lines: of the plan, which have been reported already.
    Raises:
        UsageError: for a recipe that does not fit the data. BudgetError: for a budget that is too short.
    """
    plan = make_plan(request, context.deadline, num_steps, write_speed)
    for line in plan.lines:
        context.reporter.note(line)
    return replace(plan, lines=(*first_lines, *plan.lines))


def sha256_of(dataset: ImageDataset) -> str:
    """Of images and labels, in order."""
    digest = hashlib.sha256(np.ascontiguousarray(dataset.images).data)
    digest.update(np.ascontiguousarray(dataset.labels).data)
    return digest.hexdigest()
