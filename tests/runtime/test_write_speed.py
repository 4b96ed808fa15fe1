"""Write times: by number of files, by bytes of a large file, and as the disk is now."""

import pytest
import torch

from timebox.runtime.write_speed import (
    BYTES_MARGIN,
    HALF_LIFE_SECONDS,
    MARGIN,
    NO_WRITES,
    SMALL_BYTES,
    WRITES_OF_A_CHECKPOINT,
    WRITES_OF_THE_WEIGHTS,
    WriteSpeed,
    WriteTime,
    num_bytes,
    updated_estimate,
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
    by_number = MARGIN * WRITES_OF_THE_WEIGHTS / WRITES_OF_A_CHECKPOINT
    assert WriteSpeed(0.1, lambda: 1.0).saving_share(0, 0) == pytest.approx(by_number)
    assert NO_WRITES.saving_share(LARGE, LARGE) == pytest.approx(by_number), "without any measurement"
    by_bytes = WriteSpeed(0.0, lambda: 1e-9).saving_share(LARGE, 2 * LARGE)
    assert by_bytes == pytest.approx(MARGIN / 2), "the model has half of the bytes of a checkpoint"


def test_num_bytes_of_tensors() -> None:
    assert num_bytes({"a": torch.zeros(3, 2), "b": torch.zeros(5, dtype=torch.int8)}) == 29


@pytest.mark.parametrize(
    ("estimate", "measured", "interval", "expected"),
    [
        (0.1, 2.0, 0.0, 2.0),
        (0.1, 2.0, 100.0, 2.0),
        (2.0, 2.0, 5.0, 2.0),
        (2.0, 0.0, 0.0, 2.0),
        (2.0, 0.0, HALF_LIFE_SECONDS, 1.0),
        (2.0, 1.0, HALF_LIFE_SECONDS, 1.5),
        (2.0, 0.0, 10 * HALF_LIFE_SECONDS, 2.0 / 1024),
    ],
)
def test_an_estimate_rises_at_once_and_falls_slowly(
    estimate: float, measured: float, interval: float, expected: float
) -> None:
    assert updated_estimate(estimate, measured, interval) == pytest.approx(expected)


class Clock:
    """A clock that stands still."""

    time = 100.0

    def __call__(self) -> float:
        return self.time


def write(write_time: WriteTime, clock: Clock, seconds: float) -> None:
    with write_time.measure():
        clock.time += seconds


def test_the_first_write_takes_the_place_of_the_expectation() -> None:
    clock = Clock()
    write_time = WriteTime(clock, expected_seconds=3.0)
    assert write_time.seconds == 3.0
    write(write_time, clock, 0.5)
    assert write_time.seconds == 0.5


def test_one_quick_write_does_not_show_that_the_disk_is_quick_again() -> None:
    clock = Clock()
    write_time = WriteTime(clock)
    for seconds in (0.01, 4.0, 0.01):
        write(write_time, clock, seconds)
    assert write_time.seconds == pytest.approx(4.0, rel=0.01)
    for _ in range(60):
        clock.time += 1.0
        write(write_time, clock, 0.01)
    assert write_time.seconds < 0.1


def test_a_write_in_progress_counts_with_the_time_so_far() -> None:
    clock = Clock()
    write_time = WriteTime(clock)
    write(write_time, clock, 1.0)
    with write_time.measure():
        clock.time += 0.5
        assert write_time.seconds == 1.0
        clock.time += 2.0
        with write_time.measure():
            assert write_time.seconds == 2.5, "of the one that began first"
        assert write_time.seconds == 2.5


def test_a_write_that_fails_is_not_counted() -> None:
    clock = Clock()
    write_time = WriteTime(clock)
    with pytest.raises(OSError, match="full"), write_time.measure():
        clock.time += 9.0
        raise OSError("full")
    assert write_time.seconds == 0.0
