"""The context that every stage of a command shares: deadline, reporter, process group and callbacks; and joining that
group."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from timebox.callbacks.dispatcher import NO_CALLBACKS, CallbackDispatcher
from timebox.clock import Deadline
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup, join_process_group
from timebox.distributed.run_key import KEY_VARIABLE, is_key_secret
from timebox.machine import is_one_host, is_torchrun
from timebox.progress import Reporter


@dataclass(frozen=True)
class RunContext:
    """The clock of a command, where its progress is reported, the ranks that carry it out, and the user's callbacks."""

    deadline: Deadline
    reporter: Reporter
    group: ProcessGroup = SINGLE_PROCESS
    callbacks: CallbackDispatcher = NO_CALLBACKS

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Report the start of a phase, and book the time inside under its name."""
        self.reporter.phase(name)
        with self.deadline.phase(name):
            yield


@contextmanager
def join_ranks(
    device: torch.device, deadline: Deadline, reporter: Reporter, callbacks: CallbackDispatcher = NO_CALLBACKS
) -> Iterator[RunContext]:
    """Join the process group that ``torchrun`` started; a group of one process without ``torchrun``.

    Every rank's clock is set back to the start of the earliest rank. An error inside is passed on to the other ranks.
    """
    with join_process_group(device, deadline) as group:
        if is_torchrun() and not is_key_secret(is_one_host()):
            reporter.note(
                f"the network between the hosts is trusted: {KEY_VARIABLE} is not set, so that anyone who reaches "
                "torchrun's port could send the ranks messages of their own"
            )
        yield RunContext(deadline, reporter, group, callbacks)
