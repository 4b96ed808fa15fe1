"""How long files take to reach the disk, planned from what was measured there."""

from collections.abc import Callable, Mapping
from functools import cached_property

from torch import Tensor

# A file up to this size takes what a small one takes; what each byte takes is measured on one of this size.
SMALL_BYTES = 1 << 25
# Times what was measured are set aside; more for bytes, as some disks are fast for a while only.
MARGIN, BYTES_MARGIN = 1.3, 2.0
# Configuration, model, its folder, metrics, summary; predictions where anything is scored.
WRITES_AT_THE_END = 5
# Metrics, configuration, tensors, their folder, manifest, its folder.
WRITES_OF_A_CHECKPOINT = 6


class WriteSpeed:
    """What writing takes.

    Args:
        file_seconds: measured on a small file.
        measure_byte_seconds: measures what a byte of a large file takes; called at most once, where one is planned.
    """

    def __init__(self, file_seconds: float, measure_byte_seconds: Callable[[], float]) -> None:
        self._file_seconds, self._measure_byte_seconds = file_seconds, measure_byte_seconds

    @cached_property
    def _byte_seconds(self) -> float:
        return self._measure_byte_seconds()

    def expected_seconds(self, num_files: int, num_bytes: int = 0) -> float:
        """For so many files, the largest of which has so many bytes."""
        return num_files * self._file_seconds + self._large_seconds(num_bytes)

    def planned_seconds(self, num_files: int, num_bytes: int = 0) -> float:
        """What is to be set aside for them."""
        return MARGIN * num_files * self._file_seconds + BYTES_MARGIN * self._large_seconds(num_bytes)

    def saving_share(self, model_bytes: int, checkpoint_bytes: int) -> float:
        """What is to be set aside for the files at the end, as a share of what a checkpoint takes: of as many bytes or
        more, so that a disk which is fast for a while only has shown it."""
        checkpoint = self.expected_seconds(WRITES_OF_A_CHECKPOINT, checkpoint_bytes)
        if not checkpoint:
            return MARGIN * WRITES_AT_THE_END / WRITES_OF_A_CHECKPOINT
        return MARGIN * self.expected_seconds(WRITES_AT_THE_END, model_bytes) / checkpoint

    def _large_seconds(self, num_bytes: int) -> float:
        return num_bytes * self._byte_seconds if num_bytes > SMALL_BYTES else 0.0


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Of all of them together."""
    return sum(tensor.nbytes for tensor in tensors.values())


# Where nothing is written that would have to be waited for.
NO_WRITES = WriteSpeed(0.0, lambda: 0.0)
