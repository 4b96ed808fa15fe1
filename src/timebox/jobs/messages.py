"""The protocol between the main rank and the worker ranks of a training, and the main rank's side of it.

The messages, in order; :mod:`timebox.jobs.worker` is the worker ranks' side:

1. :class:`ReadData`: read the training data. Every rank answers with a :class:`ReadResult`.
   A group that was restarted after its run was finished gets :class:`RunFinished` in its place.
2. The measurement requests of :mod:`timebox.planning.throughput.distributed`, any number of times: time training steps
   or scoring. Every rank answers with seconds per image.
3. :class:`StartTraining`: train. The ranks broadcast the first weights and the schedule, and average gradients, see
   :mod:`timebox.training.data_parallel`; at the end every rank answers with its throughput.
4. :class:`~timebox.evaluation.scoring.ScoreSplit`, at most once per split: score it together.
5. :class:`RunFinished`: leave.

A group of one process sends nothing.
"""

from contextlib import suppress
from pathlib import Path

import torch

from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits
from timebox.distributed.messages import Message, RecipeMessage
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import DataError
from timebox.jobs.job import TrainingJob, sha256_of
from timebox.planning.plan import Plan
from timebox.run.model_config import PlanRecord


class ReadData(Message, frozen=True):
    """Read and split the training data, as of :meth:`DatasetReader.read_splits`.

    Attributes:
        largest_side: of the images that the main rank has read, in pixels: the limit where ``image_size`` is None.
    """

    source: DataConfig
    image_size: int | None
    image_fit: str
    largest_side: int


class ReadResult(Message, frozen=True):
    """Answer to :class:`ReadData`: the SHA-256 of the training images and labels, or the error that reading raised."""

    sha256: str | None
    error: str = ""


class StartTraining(RecipeMessage, frozen=True):
    """Train with this config and plan.

    Attributes:
        path: run directory on the main rank's host.
        threads_share: share of a rank's threads to compute with, above 0, at most 1.
    """

    config: TrainConfig
    plan: PlanRecord
    path: str
    threads_share: float

    @property
    def full_plan(self) -> Plan:
        """The main rank's plan, with its recipe."""
        return self.plan.plan(self.recipe)


class RunFinished(Message, frozen=True):
    """The run is complete, in this directory on the main rank's host."""

    path: str


def broadcast_read_data(
    group: ProcessGroup, source: DataConfig, image_size: int | None, image_fit: str, data_splits: DataSplits
) -> None:
    """Have every rank read the data of the main rank. Raises DataError where one cannot, or reads other images."""
    if not isinstance(group, TorchrunGroup):
        return
    group.broadcast(ReadData(source, image_size, image_fit, max(data_splits.train.image_shape[:2])))
    results = group.all_gather(ReadResult(sha256_of(data_splits.train)))
    for rank, result in zip(group.ranks, results, strict=True):
        if result.error:
            raise DataError(f"{rank}: {result.error}")
        if result.sha256 != results[0].sha256:
            raise DataError(f"{rank} finds other training images in {source.data!r} than {group.ranks[0]}")


def broadcast_start_training(group: ProcessGroup, job: TrainingJob, path: Path) -> None:
    """Have every rank train the job."""
    if isinstance(group, TorchrunGroup):
        share = torch.get_num_threads() / group.ranks[0].threads
        plan, fields = PlanRecord.of(job.plan), job.plan.recipe.as_dict()
        group.broadcast(StartTraining(fields, job.config, plan, str(path.resolve()), min(share, 1.0)))


def broadcast_run_finished(group: ProcessGroup, path: Path) -> None:
    """Let the worker ranks leave. A worker rank that is gone already is no error: the run is complete."""
    with suppress(RuntimeError):
        group.broadcast(RunFinished(str(path.resolve())))
