"""The part of a process that trains with others and does not lead: it reads, measures, trains and scores as it is told,
and writes nothing."""

from pathlib import Path

import torch

from timebox.clock import Deadline
from timebox.data import Division
from timebox.distributed.process_group import Ranks
from timebox.errors import NO_ANSWER, LostMembersError, TimeboxError
from timebox.evaluation.inference import predict_probabilities
from timebox.jobs.data import Reader
from timebox.jobs.fit import Training
from timebox.jobs.job import Task, ToScore, sha256_of
from timebox.jobs.messages import Assignment, Outcome, Reading
from timebox.planning.distributed_throughput import Measurement, MeasuringMember
from timebox.reporter import SilentReporter
from timebox.run.ranks_file import note_lost
from timebox.runtime.torch_state import guest


def follow(device: torch.device, deadline: Deadline, reader: Reader) -> Path:
    """Train as the leader says, until it needs no help any more.

    Args:
        deadline: when this process started; the budget is the leader's.
        reader: reads the data here.
    Returns:
        The run directory, on the leader's host.
    Raises:
        LostMembersError: where the group broke. DataError: where the data cannot be read here.
    """
    with guest():
        group = Ranks(device, deadline.remaining())
        follower = Follower(group, deadline, reader)
        with group.membership():
            try:
                return follower.run()
            except LostMembersError as error:
                follower.note(error.lost)
                raise
            except KeyboardInterrupt:
                follower.note(group.lost())
                raise


class Follower:
    """One process of a group, see :func:`follow`.

    Attributes:
        path: of the run, once it is known.
    """

    def __init__(self, group: Ranks, deadline: Deadline, reader: Reader) -> None:
        self._group, self._deadline, self._reader = group, deadline, reader
        self.path: Path | None = None

    def run(self) -> Path:
        """All of it, in the order in which the leader goes on."""
        group = self._group
        with group.losses_noticed():
            group.gathered(self._deadline.elapsed())
            asked = group.told()
            if isinstance(asked, Path):  # a run that was finished before the group was started again
                return asked
            division = self._read(asked)
            member = MeasuringMember(division.train, group)
            while isinstance(asked := group.told(), Measurement):
                member.measure(asked)
            assigned: Assignment = asked
            self.path = assigned.path
            member.use_threads(assigned.threads_share)
        task = Task.of(assigned.request, assigned.plan, division, assigned.budget_seconds)
        training = Training(task, None, self._deadline, SilentReporter(), group)
        trained = training.run()
        with group.losses_noticed():
            training.throughputs()
            while isinstance(asked := group.told(), ToScore):
                predict_probabilities(
                    trained.model,
                    task.ordered(task.held_out()[asked.split]).images,
                    task.mean,
                    task.std,
                    tta=asked.tta,
                    device=group.device,
                    batch_size=task.plan.scoring_batch,
                    group=group,
                )
        # Where the leader has put the run, once it is whole.
        final: Path = asked
        return final

    def note(self, lost: dict[int, str]) -> None:
        """Say in the run directory who is lost, in place of the leader where that does not answer."""
        present = set(range(self._group.size)) - set(lost)
        if lost.get(0) == NO_ANSWER and self._group.rank == min(present) and self.path:
            note_lost(self.path, self._group.in_words(lost))

    def _read(self, asked: Reading) -> Division:
        self._reader.largest_side = lambda num_images: asked.largest_side
        try:
            _, division = self._reader.divided(asked.source, asked.side, asked.fit)
        except TimeboxError as error:
            self._group.gathered(Outcome(None, str(error)))
            raise
        self._group.gathered(Outcome(sha256_of(division.train)))
        return division
