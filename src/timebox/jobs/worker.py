"""The part of a process that trains with others and does not lead: it reads, measures, trains and scores as it is told,
and writes nothing."""

from pathlib import Path

import torch

from timebox.clock import Deadline
from timebox.data import DataSplits
from timebox.distributed.process_group import TorchrunGroup
from timebox.errors import NO_ANSWER, RankFailureError, TimeboxError
from timebox.evaluation.inference import InferenceConfig, predict_probabilities
from timebox.jobs.data import DatasetReader
from timebox.jobs.fit import Training
from timebox.jobs.job import ScoreSplit, TrainingJob, sha256_of
from timebox.jobs.messages import ReadData, ReadResult, StartTraining
from timebox.planning.distributed_throughput import MeasurementRequest, ThroughputWorker
from timebox.reporter import SilentReporter
from timebox.run.ranks_file import record_rank_failures
from timebox.runtime.torch_state import preserve_torch_state


def run_worker(device: torch.device, deadline: Deadline, reader: DatasetReader) -> Path:
    """Train as the leader says, until it needs no help any more.

    Args:
        deadline: when this process started; the budget is the leader's.
        reader: reads the data here.
    Returns:
        The run directory, on the leader's host.
    Raises:
        LostMembersError: where the group broke. DataError: where the data cannot be read here.
    """
    with preserve_torch_state():
        group = TorchrunGroup(device, deadline.remaining())
        worker = Worker(group, deadline, reader)
        with group.leave_at_exit():
            try:
                return worker.run()
            except RankFailureError as error:
                worker.note(error.failed_ranks)
                raise
            except KeyboardInterrupt:
                worker.note(group.failed_ranks())
                raise


class Worker:
    """One process of a group, see :func:`run_worker`.

    Attributes:
        path: of the run, once it is known.
    """

    def __init__(self, group: TorchrunGroup, deadline: Deadline, reader: DatasetReader) -> None:
        self._group, self._deadline, self._reader = group, deadline, reader
        self.path: Path | None = None

    def run(self) -> Path:
        """All of it, in the order in which the leader goes on."""
        group = self._group
        with group.raise_on_rank_failure():
            group.all_gather(self._deadline.elapsed())
            asked = group.broadcast()
            if isinstance(asked, Path):  # a run that was finished before the group was started again
                return asked
            data_splits = self._read(asked)
            member = ThroughputWorker(data_splits.train, group)
            while isinstance(asked := group.broadcast(), MeasurementRequest):
                member.measure(asked)
            assigned: StartTraining = asked
            self.path = assigned.path
            member.use_threads(assigned.threads_share)
        job = TrainingJob.of(assigned.request, assigned.plan, data_splits, assigned.budget_seconds)
        training = Training(job, None, self._deadline, SilentReporter(), group)
        trained = training.run()
        with group.raise_on_rank_failure():
            training.throughputs()
            while isinstance(asked := group.broadcast(), ScoreSplit):
                predict_probabilities(
                    trained.model,
                    job.ordered(job.held_out()[asked.split]).images,
                    InferenceConfig(job.mean, job.std, asked.tta, job.plan.scoring_batch),
                    group.device,
                    group=group,
                )
        # Where the leader has put the run, once it is whole.
        final: Path = asked
        return final

    def note(self, lost: dict[int, str]) -> None:
        """Say in the run directory who is lost, in place of the leader where that does not answer."""
        present = set(range(self._group.size)) - set(lost)
        if lost.get(0) == NO_ANSWER and self._group.rank == min(present) and self.path:
            record_rank_failures(self.path, self._group.describe_failures(lost))

    def _read(self, asked: ReadData) -> DataSplits:
        self._reader.largest_side = lambda num_images: asked.largest_side
        try:
            _, data_splits = self._reader.divided(asked.source, asked.side, asked.fit)
        except TimeboxError as error:
            self._group.all_gather(ReadResult(None, str(error)))
            raise
        self._group.all_gather(ReadResult(sha256_of(data_splits.train)))
        return data_splits
