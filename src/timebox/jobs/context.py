"""The context that every stage of a command shares: deadline, reporter and process group; and joining that group."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from timebox.clock import Deadline
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup, join_process_group
from timebox.reporter import Reporter


@dataclass(frozen=True)
class RunContext:
    """The clock of a command, where its progress is reported, and the ranks that carry it out.

    Reading, planning, training, scoring and saving all take one. The writer of the run directory is apart from it:
    there is none before the data are read, and none on worker ranks.
    """

    deadline: Deadline
    reporter: Reporter
    group: ProcessGroup = SINGLE_PROCESS

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Report the start of a phase, and book the time inside under its name."""
        self.reporter.phase(name)
        with self.deadline.phase(name):
            yield


@contextmanager
def join_ranks(device: torch.device, deadline: Deadline, reporter: Reporter) -> Iterator[RunContext]:
    """Join the process group that ``torchrun`` started, as the main rank or as a worker rank; a group of one process
    without ``torchrun``. On leaving by an error, its text is left for the other ranks.

    Every rank's clock is set back to the start of the earliest rank.
    """
    with join_process_group(device, deadline) as group:
        yield RunContext(deadline, reporter, group)
