"""The throughput of several processes that train together: all ranks measure at once, and the slowest sets the pace."""

from collections.abc import Sequence
from math import ceil

import torch

from timebox.data.dataset import ImageDataset
from timebox.distributed.messages import RecipeMessage
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.planning.throughput.benchmark import ThroughputBenchmark
from timebox.planning.throughput.cache import ThroughputCache
from timebox.recipes import Recipe


class MeasurementRequest(RecipeMessage, frozen=True):
    """Message of the main rank: measure training steps, or else scoring, with batches of one rank.

    Each rank uses ``threads_share`` of its threads, above 0, at most 1.
    """

    is_training: bool
    precision: str
    threads_share: float
    limit_seconds: float


class DistributedThroughputBenchmark(ThroughputBenchmark):
    """Measures networks on all ranks at once. Runs on the main rank, opposite to a :class:`ThroughputWorker`."""

    def __init__(
        self, train: ImageDataset, device: torch.device, precision: str, limit_seconds: float, group: TorchrunGroup
    ) -> None:
        super().__init__(train, device, precision, limit_seconds, use_cuda_graphs=False)
        self._group = group
        self._max_threads = torch.get_num_threads()

    def fastest_seconds_per_image(self, recipe: Recipe) -> float:
        rank_batch = ceil(recipe.batch_size / self._group.size)
        self.seconds_per_rank = self._measure_on_all_ranks(True, recipe.replace(batch_size=rank_batch))
        all_reduce_seconds = self._group.all_reduce_seconds(self.num_bytes(recipe))
        return (max(self.seconds_per_rank) + all_reduce_seconds / rank_batch) / self._group.size

    def scoring_seconds_per_image(self, recipe: Recipe) -> float:
        return max(self._measure_on_all_ranks(False, recipe)) / self._group.size

    def _measure_on_all_ranks(self, is_training: bool, recipe: Recipe) -> Sequence[float]:
        """Seconds per image of every rank."""
        threads_share = torch.get_num_threads() / self._max_threads
        request = MeasurementRequest(recipe.as_dict(), is_training, self.precision, threads_share, self.limit_seconds)
        self._group.broadcast(request)
        measure = super().fastest_seconds_per_image if is_training else super().scoring_seconds_per_image
        return self._group.all_gather_timed(measure(recipe))


class ThroughputWorker:
    """Makes the measurements that the main rank requests, on a worker rank."""

    def __init__(self, train: ImageDataset, group: TorchrunGroup) -> None:
        self._train, self._group = train, group
        self._max_threads = torch.get_num_threads()

    def measure(self, request: MeasurementRequest) -> None:
        """Measure, and gather the results of all ranks."""
        self.use_threads(request.threads_share)
        benchmark = ThroughputBenchmark(
            self._train, self._group.device, request.precision, request.limit_seconds, use_cuda_graphs=False
        )
        training, scoring = benchmark.fastest_seconds_per_image, benchmark.scoring_seconds_per_image
        self._group.all_gather_timed((training if request.is_training else scoring)(request.recipe))

    def use_threads(self, share: float) -> None:
        """Set the number of torch's threads to a fraction of those there were at first."""
        torch.set_num_threads(max(1, round(share * self._max_threads)))


def build_throughput_benchmark(
    train: ImageDataset,
    device: torch.device,
    precision: str,
    limit_seconds: float,
    group: ProcessGroup,
    cache: ThroughputCache | None = None,
) -> ThroughputBenchmark:
    """The benchmark for a group of processes, or for a single process, which may use a cache."""
    if isinstance(group, TorchrunGroup):
        return DistributedThroughputBenchmark(train, device, precision, limit_seconds, group)
    return ThroughputBenchmark(train, device, precision, limit_seconds, cache=cache)
