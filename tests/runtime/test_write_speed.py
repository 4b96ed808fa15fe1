"""Write times: by number of files, and by bytes of a large file."""

import pytest
import torch

from timebox.runtime.write_speed import (
    BYTES_MARGIN,
    MARGIN,
    NO_WRITES,
    SMALL_BYTES,
    WRITES_AT_THE_END,
    WRITES_OF_A_CHECKPOINT,
    WriteSpeed,
    num_bytes,
)

LARGE = 10 * SMALL_BYTES


def test_the_time_per_byte_is_measured_once_and_for_large_files_only() -> None:
    measured: list[float] = []

    def measure() -> float:
        measured.append(1e-9)
        return 1e-9

    writes = WriteSpeed(0.1, measure)
    assert writes.expected_seconds(5, SMALL_BYTES) == pytest.approx(0.5)
    assert writes.planned_seconds(5, SMALL_BYTES) == pytest.approx(MARGIN * 0.5)
    assert measured == []
    assert writes.expected_seconds(5, LARGE) == pytest.approx(0.5 + 1e-9 * LARGE)
    assert writes.planned_seconds(5, LARGE) == pytest.approx(MARGIN * 0.5 + BYTES_MARGIN * 1e-9 * LARGE)
    assert measured == [1e-9]


def test_the_time_to_save_is_a_multiple_of_the_time_of_a_checkpoint() -> None:
    by_number = MARGIN * WRITES_AT_THE_END / WRITES_OF_A_CHECKPOINT
    assert WriteSpeed(0.1, lambda: 1.0).saving_share(0, 0) == pytest.approx(by_number)
    assert NO_WRITES.saving_share(LARGE, LARGE) == pytest.approx(by_number), "without any measurement"
    by_bytes = WriteSpeed(0.0, lambda: 1e-9).saving_share(LARGE, 2 * LARGE)
    assert by_bytes == pytest.approx(MARGIN / 2), "the model has half of the bytes of a checkpoint"


def test_num_bytes_of_tensors() -> None:
    assert num_bytes({"a": torch.zeros(3, 2), "b": torch.zeros(5, dtype=torch.int8)}) == 29
