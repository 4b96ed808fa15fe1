"""What the leader of a group tells the other processes, so that all train the same network on the same images."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import DataError
from timebox.jobs.job import TrainingJob, sha256_of
from timebox.planning.plan import Plan


@dataclass(frozen=True)
class ReadData:
    """What to read. The leader has read it already: ``largest_side`` is what it came to, in pixels."""

    source: DataConfig
    side: int | None
    fit: str
    largest_side: int


@dataclass(frozen=True)
class ReadResult:
    """How reading went: the hash of the training images and labels, or what went wrong."""

    sha256: str | None
    error: str = ""


@dataclass(frozen=True)
class StartTraining:
    """What to train.

    Attributes:
        path: where the leader writes the run.
        threads_share: of its threads that a process takes.
    """

    request: TrainConfig
    plan: Plan
    budget_seconds: float | None
    path: Path
    threads_share: float


def broadcast_read_data(
    group: ProcessGroup, source: DataConfig, side: int | None, fit: str, data_splits: DataSplits
) -> None:
    """Have all processes read what the leader has read. Raises DataError where one cannot, or finds other images."""
    if not isinstance(group, TorchrunGroup):
        return
    group.broadcast(ReadData(source, side, fit, max(data_splits.train.image_shape[:2])))
    outcomes: list[ReadResult] = group.all_gather(ReadResult(sha256_of(data_splits.train)))
    for member, outcome in zip(group.ranks, outcomes, strict=True):
        if outcome.error:
            raise DataError(f"{member}: {outcome.error}")
        if outcome.sha256 != outcomes[0].sha256:
            raise DataError(f"{member} finds other training images in {source.data!r} than {group.ranks[0]}")


def broadcast_run_path(group: ProcessGroup, path: Path) -> None:
    """Let the others go, where there are any; they learn where the run is. Whether they hear it changes nothing."""
    with suppress(RuntimeError):
        group.broadcast(path.resolve())


def broadcast_start_training(group: ProcessGroup, job: TrainingJob, path: Path) -> None:
    """Have all processes train the job."""
    if isinstance(group, TorchrunGroup):
        share = torch.get_num_threads() / group.ranks[0].threads
        group.broadcast(StartTraining(job.request, job.plan, job.budget_seconds, path.resolve(), min(share, 1.0)))
