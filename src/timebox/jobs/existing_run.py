"""A run on disk that is resumed or replayed, and the one that a restarted group of ranks had begun."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import DataSplits, LoadedData
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import DataError, RunError
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import machine, sha256_of, versions
from timebox.jobs.messages import broadcast_read_data
from timebox.planning.plan import Plan
from timebox.run.files import CONFIG
from timebox.run.ranks_file import RanksRecord, new_ranks_record, read_ranks_record, restarted_run, seconds_since_launch
from timebox.run.run import Run, mapping
from timebox.runtime.device import resolve_device


@dataclass(frozen=True, eq=False)
class ExistingRun:
    """A run on disk and what its model.json records of the training.

    Attributes:
        config: the options it was trained with; the data path may have been replaced.
        data_sha256: of the training images and labels.
        init_sha256: of the file of initial weights; None for random ones.
    """

    run: Run
    config: TrainConfig
    plan: Plan
    data_sha256: object
    init_sha256: object

    @classmethod
    def load(cls, path: Path, data: str | None = None) -> "ExistingRun":
        """Load the run in a directory.

        Args:
            data: path of its data today; None for the recorded one.
        Raises:
            RunError: where there is no such run, or its model.json is damaged.
        """
        run = Run(path)
        recorded = DataConfig.of_run(run.config, path)
        data_config = recorded if data is None else recorded.replace(data=data)
        try:
            training = mapping(run.config.get("training"))
            plan = Plan.from_dict(mapping(run.config.get("plan")), run.recipe)
            config = TrainConfig.of_run(data_config, training, run.config.get("seed"))
        except (TypeError, ValueError) as error:
            raise RunError(f"model.json of {str(path)!r} is damaged: {error}") from error
        return cls(run, config, plan, training.get("data_sha256"), training.get("init_sha256"))

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.run.summary) and not self.run.summary.get("stopped")

    @property
    def device(self) -> torch.device:
        """The device of the run's kind here. Raises UsageError where there is none."""
        return resolve_device(self.plan.device.type)

    @property
    def num_ranks(self) -> object:
        """The number of ranks it was trained by."""
        return mapping(self.run.config.get("machine")).get("processes", 1)

    def read_data(self, reader: DatasetReader, context: RunContext) -> tuple[LoadedData, DataSplits]:
        """Read the run's data again, on every rank. Raises DataError where the training images have changed."""
        with context.phase("reading"):
            height, width, _ = image_shape = self.run.preprocessing.image_shape
            image_size, image_fit = self.run.recipe.image_size or None, self.run.recipe.image_fit
            reader.largest_side = lambda num_images: max(height, width)
            loaded, data_splits = reader.read_splits(self.config.source, image_size, image_fit)
            if data_splits.train.image_shape != image_shape or sha256_of(data_splits.train) != self.data_sha256:
                raise DataError(
                    f"{self.config.source.data!r} does not hold the {height}x{width} training images that run "
                    f"{str(self.path)!r} was trained on"
                )
            broadcast_read_data(context.group, self.config.source, image_size, image_fit, data_splits)
        return loaded, data_splits

    def differences(self, num_ranks: int) -> list[str]:
        """Differences between the recorded machine and versions and those of today, a text each."""
        recorded = {
            "processes": 1,
            **mapping(self.run.config.get("machine")),
            **mapping(self.run.config.get("versions")),
        }
        current = {**machine(self.plan.device, num_ranks), **versions()}
        return [
            f"{name} {recorded.get(name)!r} there, {value!r} here"
            for name, value in current.items()
            if recorded.get(name) != value
        ]


@dataclass(frozen=True)
class RestartedRun:
    """The run that a group had begun when a rank failed and ``torchrun`` restarted the group."""

    path: Path
    record: RanksRecord

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can be resumed; else it is trained from the start."""
        return (self.path / CONFIG).is_file()


def find_restarted_run(group: ProcessGroup, out: Path | None, deadline: Deadline) -> RestartedRun | None:
    """The run to resume, where ``torchrun`` restarted the group; None where it did not, or no run was begun.

    Sets the clock back to the first start of the group: the one recorded in the run, else the start of ``torchrun``.

    Args:
        out: the run directory that was set, if any.
    """
    if not isinstance(group, TorchrunGroup) or group.num_restarts == 0:
        return None
    path = restarted_run(out)
    record = read_ranks_record(path) if path else None
    seconds = time.time() - record.started_at if record else seconds_since_launch()
    deadline.add_earlier_phases({"lost": max(seconds - deadline.elapsed(), 0.0)})
    if not path or not record:
        return None
    # A rank that failed just after the start of the run may not be recorded in it.
    failures = group.failures_before_restart()
    is_recorded = record.lost[-len(failures) :] == failures
    return RestartedRun(path, record if is_recorded else record.with_lost(failures))


def save_ranks_record(group: ProcessGroup, run: Path, deadline: Deadline, failures: tuple[str, ...] = ()) -> None:
    """Record in a run directory which ranks train it, and the earlier rank failures, a line each. Raises OSError."""
    if isinstance(group, TorchrunGroup):
        new_ranks_record(group.ranks, deadline.elapsed()).with_lost(failures).save(run)
