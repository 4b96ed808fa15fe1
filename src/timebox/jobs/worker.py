"""A worker rank: reads, measures, trains and scores as the main rank's messages say, and writes no run."""

from pathlib import Path

import torch

from timebox.clock import Deadline
from timebox.custom import code_names, trust
from timebox.data import DataSplits
from timebox.distributed.process_group import TorchrunGroup
from timebox.errors import NO_ANSWER, RankFailureError, TimeboxError
from timebox.evaluation.scoring import ScoreSplit
from timebox.jobs.context import RunContext, join_ranks
from timebox.jobs.data import DatasetReader
from timebox.jobs.fit import Training
from timebox.jobs.job import TrainingJob, sha256_of
from timebox.jobs.messages import ReadData, ReadResult, RunFinished, StartTraining
from timebox.planning.throughput.distributed import MeasurementRequest, ThroughputWorker
from timebox.progress import SilentReporter
from timebox.run.ranks_file import record_rank_failures_of_dead
from timebox.runtime.torch_state import preserve_torch_state


def run_worker(device: torch.device, deadline: Deadline, reader: DatasetReader, trust_code: bool = False) -> Path:
    """Take part in the main rank's training until the run is finished; the run directory, on the main rank's host.

    Args:
        deadline: the clock of this process; only the main rank's has a budget that counts.
        trust_code: whether to import the code that the recipe names.
    Raises:
        RankFailureError: where another rank failed. DataError: where the data cannot be read on this host.
    """
    with preserve_torch_state(), join_ranks(device, deadline, SilentReporter()) as context:
        worker = WorkerRank(context, reader, trust_code)
        try:
            with context.group.raise_on_rank_failure():
                return worker.run()
        except RankFailureError as error:
            worker.record_failures(error.failed_ranks)
            raise
        except KeyboardInterrupt:
            worker.record_failures(context.group.failed_ranks())
            raise


class WorkerRank:
    """One worker rank; the order of the messages is in :mod:`timebox.jobs.messages`."""

    def __init__(self, context: RunContext, reader: DatasetReader, trust_code: bool) -> None:
        assert isinstance(context.group, TorchrunGroup), "a worker rank is started by torchrun"
        self._context, self._group, self._reader, self._trust_code = context, context.group, reader, trust_code
        self._path: Path | None = None  # the run directory, known from the start of training on

    def run(self) -> Path:
        """Follow the main rank's messages to the end; the run directory."""
        message: ReadData | RunFinished = self._group.receive_broadcast(ReadData | RunFinished)
        if isinstance(message, RunFinished):
            return Path(message.path)
        data_splits = self._read(message)
        start = self._measure_throughput(data_splits)
        self._path = Path(start.path)
        if self._trust_code:
            trust(code_names(start.recipe_fields).values())
        job = TrainingJob(start.config, start.full_plan, data_splits)
        training = Training(job, self._context)
        result = training.run()
        training.throughputs()
        scorer, splits = job.scorer(self._group), job.held_out
        while isinstance(after := self._group.receive_broadcast(ScoreSplit | RunFinished), ScoreSplit):
            scorer.score_split(result.model, after.split, splits[after.split], after.tta)
        return Path(after.path)

    def record_failures(self, failed_ranks: dict[int, str]) -> None:
        """Record the failed ranks in the run directory if the main rank is one, and this rank is the first left."""
        present = set(range(self._group.size)) - set(failed_ranks)
        if failed_ranks.get(0) == NO_ANSWER and self._group.rank == min(present) and self._path:
            record_rank_failures_of_dead(self._path, self._group.describe_failures(failed_ranks))

    def _read(self, message: ReadData) -> DataSplits:
        self._reader.largest_side = lambda num_images: message.largest_side
        try:
            _, data_splits = self._reader.read_splits(message.source, message.image_size, message.image_fit)
        except TimeboxError as error:
            self._group.all_gather(ReadResult(None, str(error)))
            raise
        self._group.all_gather(ReadResult(sha256_of(data_splits.train)))
        return data_splits

    def _measure_throughput(self, data_splits: DataSplits) -> StartTraining:
        """Answer throughput measurements until training starts."""
        worker = ThroughputWorker(data_splits.train, self._group)
        kinds = MeasurementRequest | StartTraining
        while isinstance(message := self._group.receive_broadcast(kinds), MeasurementRequest):
            if self._trust_code:
                trust(code_names(message.recipe_fields).values())
            worker.measure(message)
        start: StartTraining = message
        worker.use_threads(start.threads_share)
        return start
