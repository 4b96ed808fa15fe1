"""What the leader of a group tells the other processes, so that all train the same network on the same images."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from timebox.data import Division
from timebox.distributed.process_group import Group, Ranks
from timebox.errors import DataError
from timebox.jobs.config import Request
from timebox.jobs.data import Source
from timebox.jobs.job import Task, sha256_of
from timebox.planning.plan import Plan


@dataclass(frozen=True)
class Reading:
    """What to read. The leader has read it already: ``largest_side`` is what it came to, in pixels."""

    source: Source
    side: int | None
    fit: str
    largest_side: int


@dataclass(frozen=True)
class Outcome:
    """How reading went: the hash of the training images and labels, or what went wrong."""

    sha256: str | None
    error: str = ""


@dataclass(frozen=True)
class Assignment:
    """What to train.

    Attributes:
        path: where the leader writes the run.
        threads_share: of its threads that a process takes.
    """

    request: Request
    plan: Plan
    budget_seconds: float | None
    path: Path
    threads_share: float


def tell_reading(group: Group, source: Source, side: int | None, fit: str, division: Division) -> None:
    """Have all processes read what the leader has read. Raises DataError where one cannot, or finds other images."""
    if not isinstance(group, Ranks):
        return
    group.told(Reading(source, side, fit, max(division.train.image_shape[:2])))
    outcomes: list[Outcome] = group.gathered(Outcome(sha256_of(division.train)))
    for member, outcome in zip(group.members, outcomes, strict=True):
        if outcome.error:
            raise DataError(f"{member}: {outcome.error}")
        if outcome.sha256 != outcomes[0].sha256:
            raise DataError(f"{member} finds other training images in {source.data!r} than {group.members[0]}")


def tell_end(group: Group, path: Path) -> None:
    """Let the others go, where there are any; they learn where the run is. Whether they hear it changes nothing."""
    with suppress(RuntimeError):
        group.told(path.resolve())


def tell_assignment(group: Group, task: Task, path: Path) -> None:
    """Have all processes train the task."""
    if isinstance(group, Ranks):
        share = torch.get_num_threads() / group.members[0].threads
        group.told(Assignment(task.request, task.plan, task.budget_seconds, path.resolve(), min(share, 1.0)))
