"""A run on disk that is resumed or replayed."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from timebox.configs.train import TrainConfig
from timebox.data import DataSplits, LoadedData
from timebox.errors import DataError, RunError, UsageError
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import sha256_of
from timebox.jobs.messages import broadcast_read_data
from timebox.planning.plan import Plan
from timebox.run.files import CONFIG
from timebox.run.json_values import from_values, to_values
from timebox.run.model_config import Machine, TrainedModelConfig, installed_versions
from timebox.run.run import Run
from timebox.runtime.device import resolve_device

# Of the time left, for reading: a run that is resumed may have little left to train.
RESUMED_SHARE = 0.9


@dataclass(frozen=True, eq=False)
class ExistingRun:
    """A run on disk and its model.json.

    Attributes:
        recorded: all of model.json.
        config: the options it was trained with; the data path may have been replaced.
    """

    run: Run
    recorded: TrainedModelConfig
    config: TrainConfig

    @classmethod
    def load(cls, path: Path, data: str | None = None) -> "ExistingRun":
        """Load the run in a directory; its data are in ``data`` today, None for the recorded path.

        Raises RunError where there is no such run, or its model.json is damaged.
        """
        run, where = Run(path), repr(str(path / CONFIG))
        recorded = from_values(run.config, TrainedModelConfig, where)
        source = recorded.source if data is None else recorded.source.replace(data=data)
        try:
            return cls(run, recorded, recorded.training.train_config(source, recorded.seed))
        except UsageError as error:
            raise RunError(f"{where} is damaged: {error}") from error

    @cached_property
    def plan(self) -> Plan:
        """The plan that the run was trained by."""
        return self.recorded.plan.plan(self.run.recipe)

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return bool(self.run.summary) and not self.run.summary.get("stopped")

    @property
    def device(self) -> torch.device:
        """The device of the run's kind here. Raises UsageError where there is none."""
        return resolve_device(self.plan.device.type)

    def read_data(self, reader: DatasetReader, context: RunContext) -> tuple[LoadedData, DataSplits]:
        """Read the run's data again, on every rank. Raises DataError where the training images have changed."""
        with context.phase("reading"):
            height, width, _ = image_shape = self.run.preprocessing.image_shape
            image_size, image_fit = self.run.recipe.image_size or None, self.run.recipe.image_fit
            if part := self.recorded.training.part_read:
                reader.part, image_size = part, image_size or self.run.preprocessing.square_side
            reader.share = RESUMED_SHARE
            reader.largest_side = lambda num_images: max(height, width)
            source = self.config.source
            loaded, data_splits = reader.read_splits(source, image_size, image_fit)
            train, sha256 = data_splits.train, self.recorded.training.data_sha256
            if train.image_shape != image_shape or sha256_of(train) != sha256:
                raise DataError(
                    f"{source.data!r} does not hold the {height}x{width} training images that run "
                    f"{str(self.path)!r} was trained on"
                )
            broadcast_read_data(context.group, source, image_size, image_fit, data_splits)
        return loaded, data_splits

    def differences(self, num_ranks: int) -> list[str]:
        """Differences between the recorded machine and versions and those of today, a text each."""
        recorded = {**to_values(self.recorded.machine), **self.recorded.versions}
        current = {**to_values(Machine.current(self.plan.device, num_ranks)), **installed_versions()}
        differing = [name for name, value in current.items() if recorded.get(name) != value]
        return [f"{name} {recorded.get(name)!r} there, {current[name]!r} here" for name in differing]
