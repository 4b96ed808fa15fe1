"""Time to write files to disk, estimated from measurements: at the start of a command, and as the disk is now."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

from torch import Tensor

# Files up to this size take a constant time; the time per byte is measured on a file of this size.
SMALL_BYTES = 1 << 25
# Factors of the measured times that a plan reserves; larger for bytes, as some disks are fast at first only.
MARGIN, BYTES_MARGIN = 1.3, 2.0
# Configuration, model, its folder, metrics, summary; predictions where anything is scored.
WRITES_AT_THE_END = 5
# Metrics, configuration, tensors, their folder, manifest, its folder.
WRITES_OF_A_CHECKPOINT = 6
# Weights and their folder: all that a run waits for the disk for where time is short.
WRITES_OF_THE_WEIGHTS = 2
# Metrics and summary.
WRITES_OF_THE_SUMMARY = 2
# A write time that is shorter than the estimate counts for half after so many seconds: a disk that others use is slow
# now and then, and one quick write does not show that they are done.
HALF_LIFE_SECONDS = 10.0


class WriteSpeed:
    """Estimates how long files take to write, from the seconds of a small file and per byte of a large one.

    The latter are measured at most once, when first needed.
    """

    def __init__(self, file_seconds: float, measure_byte_seconds: Callable[[], float]) -> None:
        self._file_seconds, self._measure_byte_seconds = file_seconds, measure_byte_seconds

    @cached_property
    def _byte_seconds(self) -> float:
        return self._measure_byte_seconds()

    def expected_seconds(self, num_files: int, num_bytes: int = 0) -> float:
        """Expected seconds for ``num_files`` files, the largest of which has ``num_bytes`` bytes."""
        return num_files * self._file_seconds + self._large_seconds(num_bytes)

    def planned_seconds(self, num_files: int, num_bytes: int = 0) -> float:
        """The expected seconds, with a margin, for a plan to reserve."""
        return MARGIN * num_files * self._file_seconds + BYTES_MARGIN * self._large_seconds(num_bytes)

    def saving_share(self, model_bytes: int, checkpoint_bytes: int) -> float:
        """Time to reserve for the weights at the end of a run, as a multiple of the time that a checkpoint takes.

        A checkpoint has at least as many bytes as the model, so its time shows whether a disk is fast at first only.
        """
        checkpoint = self.expected_seconds(WRITES_OF_A_CHECKPOINT, checkpoint_bytes)
        if not checkpoint:
            return MARGIN * WRITES_OF_THE_WEIGHTS / WRITES_OF_A_CHECKPOINT
        return MARGIN * self.expected_seconds(WRITES_OF_THE_WEIGHTS, model_bytes) / checkpoint

    def _large_seconds(self, num_bytes: int) -> float:
        return num_bytes * self._byte_seconds if num_bytes > SMALL_BYTES else 0.0


def updated_estimate(estimate: float, measured: float, interval: float) -> float:
    """The estimated seconds of a write after another was measured ``interval`` seconds later.

    It rises at once to a slower one, and falls by half of the difference to a faster one in ``HALF_LIFE_SECONDS``.
    """
    if measured >= estimate:
        return measured
    return measured + (estimate - measured) * math.exp2(-interval / HALF_LIFE_SECONDS)


class WriteTime:
    """Seconds that a write of one kind takes, as the disk is now; see :func:`updated_estimate`.

    A write in progress counts with the time that it has taken so far. Several threads may measure at once.

    Args:
        now: a clock in seconds.
        expected_seconds: until one has been measured.
    """

    def __init__(self, now: Callable[[], float], expected_seconds: float = 0.0) -> None:
        self._now, self._estimate = now, expected_seconds
        self._updated_at: float | None = None
        self._started: dict[object, float] = {}

    @property
    def seconds(self) -> float:
        """The estimate at this moment."""
        started = list(self._started.values())
        return max(self._estimate, self._now() - min(started)) if started else self._estimate

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the time inside as that of a write, unless it fails."""
        write, started = object(), self._now()
        self._started[write] = started
        try:
            yield
            self._add(started)
        finally:
            del self._started[write]

    def _add(self, started: float) -> None:
        moment = self._now()
        # The first measurement takes the place of the expectation.
        before = 0.0 if self._updated_at is None else self._estimate
        self._estimate = updated_estimate(before, moment - started, moment - (self._updated_at or moment))
        self._updated_at = moment


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Total size of the tensors in bytes."""
    return sum(tensor.nbytes for tensor in tensors.values())


# For a process that writes no files, or none to wait for.
NO_WRITES = WriteSpeed(0.0, lambda: 0.0)
