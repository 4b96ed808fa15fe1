"""The speed of several processes that train together: all measure at once, and the slowest sets the pace."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch

from timebox.data.dataset import ImageDataset
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.planning.throughput import ThroughputBenchmark
from timebox.recipe import Recipe


@dataclass(frozen=True)
class Measurement:
    """What the leader asks all to measure.

    Attributes:
        of_training: whether steps of training; else scoring.
        recipe: with the batch of one process.
        threads_share: of its threads that a process takes, above 0, at most 1.
        limit_seconds: about what it may take.
    """

    of_training: bool
    precision: str
    recipe: Recipe
    threads_share: float
    limit_seconds: float


class DistributedThroughputBenchmark(ThroughputBenchmark):
    """The leader's: what it measures, the whole group measures.

    Attributes:
        alone: seconds per image of the latest training measured, of each process by itself, by rank.
    """

    def __init__(
        self, train: ImageDataset, device: torch.device, precision: str, limit_seconds: float, group: TorchrunGroup
    ) -> None:
        super().__init__(train, device, precision, limit_seconds, recorded=False)
        self._group = group
        self._most_threads = torch.get_num_threads()
        self.alone: Sequence[float] = ()

    def fastest_seconds_per_image(self, recipe: Recipe) -> float:
        share = ceil(recipe.batch_size / self._group.size)
        self.alone = self._measured_by_all(True, recipe.replace(batch_size=share))
        exchange = self._group.all_reduce_seconds(self.num_bytes(recipe))
        return (max(self.alone) + exchange / share) / self._group.size

    def scoring_seconds_per_image(self, recipe: Recipe) -> float:
        return max(self._measured_by_all(False, recipe)) / self._group.size

    def _measured_by_all(self, of_training: bool, recipe: Recipe) -> list[float]:
        threads_share = torch.get_num_threads() / self._most_threads
        asked = Measurement(of_training, self.precision, recipe, threads_share, self.limit_seconds)
        self._group.broadcast(asked)
        own = super().fastest_seconds_per_image(recipe) if of_training else super().scoring_seconds_per_image(recipe)
        return self._group.all_gather_timed(own)


class ThroughputWorker:
    """A process that measures what the leader asks for."""

    def __init__(self, train: ImageDataset, group: TorchrunGroup) -> None:
        self._train, self._group = train, group
        self._most_threads = torch.get_num_threads()

    def measure(self, asked: Measurement) -> None:
        """Measure, and tell the others."""
        self.use_threads(asked.threads_share)
        benchmark = ThroughputBenchmark(
            self._train, self._group.device, asked.precision, asked.limit_seconds, recorded=False
        )
        if asked.of_training:
            self._group.all_gather_timed(benchmark.fastest_seconds_per_image(asked.recipe))
        else:
            self._group.all_gather_timed(benchmark.scoring_seconds_per_image(asked.recipe))

    def use_threads(self, share: float) -> None:
        """Compute with a share of the threads there are."""
        torch.set_num_threads(max(1, round(share * self._most_threads)))


def build_throughput_benchmark(
    train: ImageDataset, device: torch.device, precision: str, limit_seconds: float, group: ProcessGroup
) -> ThroughputBenchmark:
    """The bench that measures this group."""
    if isinstance(group, TorchrunGroup):
        return DistributedThroughputBenchmark(train, device, precision, limit_seconds, group)
    return ThroughputBenchmark(train, device, precision, limit_seconds)
