"""The part of the process that leads a group: when its clock began, and which run it goes on with after a loss."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from timebox.clock import Deadline
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup, join_process_group
from timebox.run.files import CONFIG
from timebox.run.ranks_file import RanksRecord, find_restarted_run, read_ranks_record, seconds_since_launch


@dataclass(frozen=True)
class StartedRun:
    """A run that the group had begun when it lost a process and was started again."""

    path: Path
    record: RanksRecord

    @property
    def can_be_continued(self) -> bool:
        """Whether it came as far as to its first checkpoint; else it is begun anew."""
        return (self.path / CONFIG).is_file()


@contextmanager
def joined_as_main_rank(device: torch.device, deadline: Deadline) -> Iterator[ProcessGroup]:
    """The group that this process leads; alone, where ``torchrun`` did not start it. The clock of a group begins with
    its earliest process."""
    group = join_process_group(device, deadline.remaining())
    if isinstance(group, TorchrunGroup):
        earliest: float = max(group.all_gather(deadline.elapsed()))
        deadline.add_earlier_phases({"start-up": max(earliest - deadline.elapsed(), 0.0)})
    with group.leave_at_exit(), group.raise_on_rank_failure():
        yield group


def find_started_run(group: ProcessGroup, out: Path | None, deadline: Deadline) -> StartedRun | None:
    """The run to go on with, where the group was started again. The clock then runs since the group was first started:
    as the run tells, else as long as its launcher runs.

    Args:
        out: the run directory asked for, if one was.
    """
    if not isinstance(group, TorchrunGroup) or group.num_restarts == 0:
        return None
    path = find_restarted_run(out)
    record = read_ranks_record(path) if path else None
    since = time.time() - record.started_at if record else seconds_since_launch()
    deadline.add_earlier_phases({"lost": max(since - deadline.elapsed(), 0.0)})
    return StartedRun(path, _with_noted(record, group.failures_before_restart())) if path and record else None


def _with_noted(record: RanksRecord, lines: tuple[str, ...]) -> RanksRecord:
    """With who was lost the last time, where nobody wrote it into the run: it may have been begun a moment before."""
    return record if record.failures[-len(lines) :] == lines else record.with_failures(lines)


def save_ranks_record(group: ProcessGroup, run: Path, deadline: Deadline, lost: tuple[str, ...] = ()) -> None:
    """Say in a run directory who trains it, and who was lost before. Raises OSError."""
    if isinstance(group, TorchrunGroup):
        RanksRecord.new(group.ranks, deadline.elapsed()).with_failures(lost).save(run)
