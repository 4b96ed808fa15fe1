"""Checkpoints in the background: interval, one at a time, failed writes and slow disks."""

import threading

import pytest
import torch

from timebox.clock import Deadline
from timebox.training.checkpointer import INTERVAL_COSTS, INTERVAL_SECONDS, AsyncCheckpointer
from timebox.training.state import Snapshot

LIMIT_SECONDS = 2.5


def snapshot(step: int, value: float = 1.0) -> Snapshot:
    return Snapshot(step, step / 1000, {"weight": torch.tensor([0.0, value]), "count": torch.tensor(step)}, {})


class Disk:
    """A slow disk on a simulated clock, and the checkpointer that writes to it."""

    def __init__(self, cost: float = 0.01, seconds_left: float = float("inf"), expected_seconds: float = 0.0) -> None:
        self.time, self.cost, self.seconds_left = 100.0, cost, seconds_left
        self.failure: OSError | None = None
        self.may_finish = threading.Event()
        self.may_finish.set()
        self.attempts: list[int] = []
        self.written: list[int] = []
        self.probes: list[float] = []
        self.messages: list[str] = []
        deadline = Deadline(None, now=lambda: self.time)
        self.checkpointer = AsyncCheckpointer(
            self.write, deadline, lambda: self.seconds_left, self.messages.append, expected_seconds, self.probe
        )

    def write(self, snapshot: Snapshot) -> None:
        self.attempts.append(snapshot.step)
        self.may_finish.wait()
        self.time += self.cost
        if self.failure:
            raise self.failure
        self.written.append(snapshot.step)

    def probe(self) -> None:
        self.may_finish.wait()
        self.time += self.cost
        self.probes.append(self.time)
        if self.failure:
            raise self.failure

    def probe_for(self, seconds: float) -> None:
        """Ask for probes, every tenth of a second."""
        end = self.time + seconds
        while self.time < end:
            self.checkpointer.probe_if_due()
            assert self.checkpointer.wait(10)
            self.time += 0.1

    def write_and_wait(self, step: int) -> None:
        self.checkpointer.save(snapshot(step))
        assert self.checkpointer.wait(float("inf"))

    def seconds_until_due(self) -> float:
        """Time until the next checkpoint is due, in steps of a tenth of a second."""
        began = self.time
        while not self.checkpointer.is_due():
            self.time += 0.1
            assert self.time < began + 10_000
        return self.time - began


def test_the_first_checkpoint_is_due_at_once() -> None:
    disk = Disk()
    assert disk.checkpointer.is_due()
    assert disk.checkpointer.cost_seconds == 0.0
    disk.write_and_wait(1)
    assert disk.written == [1]
    assert disk.checkpointer.cost_seconds == pytest.approx(disk.cost)


def test_cheap_checkpoints_are_written_every_few_seconds() -> None:
    disk = Disk(cost=0.01)
    for step in range(4):
        disk.write_and_wait(step)
        assert disk.seconds_until_due() == pytest.approx(INTERVAL_SECONDS, abs=0.12)


def test_expensive_checkpoints_take_a_fiftieth_of_the_time() -> None:
    disk = Disk(cost=3.0)
    disk.write_and_wait(0)
    assert disk.seconds_until_due() <= INTERVAL_SECONDS, "a single measurement may be a stall"
    for step in range(1, 4):
        disk.write_and_wait(step)
        # The interval lasts from the start of one checkpoint to the end of the next.
        assert disk.seconds_until_due() == pytest.approx((INTERVAL_COSTS - 2) * disk.cost, abs=0.2)


def test_one_stall_does_not_delay_the_next_checkpoint() -> None:
    disk = Disk(cost=0.01)
    disk.write_and_wait(0)
    disk.seconds_until_due()
    disk.cost = 4.0
    disk.write_and_wait(1)
    disk.cost = 0.01
    assert disk.seconds_until_due() <= INTERVAL_SECONDS
    disk.write_and_wait(2)
    assert disk.checkpointer.cost_seconds == pytest.approx(0.01)


def test_none_is_due_while_one_is_being_written() -> None:
    disk = Disk()
    disk.may_finish.clear()
    disk.checkpointer.save(snapshot(1))
    disk.time += 1000
    assert not disk.checkpointer.is_due()
    assert not disk.checkpointer.wait(0.01)
    disk.may_finish.set()
    assert disk.checkpointer.wait(10)
    assert disk.checkpointer.is_due()


def test_none_is_due_that_would_not_be_finished_in_time() -> None:
    disk = Disk(cost=0.5)
    disk.write_and_wait(1)
    disk.time += 1000
    disk.seconds_left = 0.9
    assert not disk.checkpointer.is_due()
    disk.seconds_left = 1.1
    assert disk.checkpointer.is_due()


def test_the_first_checkpoint_is_not_due_where_it_would_take_much_of_the_time_left() -> None:
    disk = Disk(seconds_left=39.0, expected_seconds=4.0)
    assert not disk.checkpointer.is_due()
    disk.seconds_left = 41.0
    assert disk.checkpointer.is_due()


def test_a_failed_write_is_reported_once_and_tried_again() -> None:
    disk = Disk()
    disk.write_and_wait(1)
    assert not disk.checkpointer.has_failed
    disk.failure = OSError(28, "No space left on device")
    for step in (2, 3, 4):
        disk.seconds_until_due()
        disk.write_and_wait(step)
    assert disk.attempts == [1, 2, 3, 4]
    assert disk.messages == [
        "the checkpoint could not be written (No space left on device); the training goes on in memory"
    ]
    disk.failure = None
    disk.seconds_until_due()
    disk.write_and_wait(5)
    assert disk.written == [1, 5]
    assert len(disk.messages) == 1
    assert disk.checkpointer.has_failed, "the run reports it at its end"


def test_an_error_without_errno_is_reported_with_its_message() -> None:
    disk = Disk()
    disk.failure = OSError("the cable was pulled")
    disk.write_and_wait(1)
    assert "(the cable was pulled)" in disk.messages[0]


def test_running_out_of_memory_while_writing_is_a_failed_write() -> None:
    disk = Disk()
    disk.failure = MemoryError()  # type: ignore[assignment]
    disk.write_and_wait(1)
    assert disk.checkpointer.has_failed
    assert "(memory ran out)" in disk.messages[0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_snapshots_that_are_not_finite_are_not_written(value: float) -> None:
    disk = Disk()
    disk.write_and_wait(1)
    disk.checkpointer.save(snapshot(2, value))
    assert disk.checkpointer.wait(10)
    disk.checkpointer.save_last(snapshot(3, value), LIMIT_SECONDS)
    assert disk.attempts == [1]
    assert not disk.checkpointer.has_failed


def test_the_last_checkpoint_is_written_only_if_it_is_newer() -> None:
    disk = Disk()
    disk.write_and_wait(5)
    disk.checkpointer.save_last(snapshot(5), LIMIT_SECONDS)
    disk.checkpointer.save_last(snapshot(4), LIMIT_SECONDS)
    assert disk.attempts == [5]
    disk.checkpointer.save_last(snapshot(6), LIMIT_SECONDS)
    assert disk.written == [5, 6]


def test_the_last_checkpoint_may_be_the_first() -> None:
    disk = Disk()
    disk.checkpointer.save_last(snapshot(0), LIMIT_SECONDS)
    assert disk.written == [0]


def test_the_last_checkpoint_waits_for_a_write_in_progress() -> None:
    disk = Disk()
    disk.may_finish.clear()
    disk.checkpointer.save(snapshot(1))
    threading.Timer(0.05, disk.may_finish.set).start()
    disk.checkpointer.save_last(snapshot(2), LIMIT_SECONDS)
    assert disk.written == [1, 2]


@pytest.mark.parametrize("in_progress", [False, True])
def test_the_last_checkpoint_respects_its_time_limit(in_progress: bool) -> None:
    """A disk that hangs must not delay the exit of a stopped command."""
    disk = Disk()
    disk.may_finish.clear()
    if in_progress:
        disk.checkpointer.save(snapshot(1))
    disk.checkpointer.save_last(snapshot(2), 0.2)  # the write never ends by itself
    assert disk.written == []
    assert disk.attempts == [1 if in_progress else 2]
    disk.may_finish.set()
    assert disk.checkpointer.wait(10)


def test_the_last_checkpoint_is_left_out_where_it_would_take_too_long() -> None:
    disk = Disk(cost=1.3)
    disk.write_and_wait(1)
    disk.checkpointer.save_last(snapshot(2), LIMIT_SECONDS)
    assert disk.attempts == [1]
    disk.cost = 1.2
    disk.write_and_wait(3)
    disk.checkpointer.save_last(snapshot(4), LIMIT_SECONDS)
    assert disk.written == [1, 3, 4]


def test_after_a_failed_write_the_last_checkpoint_is_still_tried() -> None:
    disk = Disk()
    disk.failure = OSError(5, "Input/output error")
    disk.write_and_wait(1)
    disk.failure = None
    disk.checkpointer.save_last(snapshot(1), LIMIT_SECONDS)
    assert disk.written == [1]


def test_an_infinite_wait_ends_with_the_write() -> None:
    disk = Disk()
    disk.may_finish.clear()
    disk.checkpointer.save(snapshot(1))
    threading.Timer(0.05, disk.may_finish.set).start()
    assert disk.checkpointer.wait(float("inf"))
    assert disk.written == [1]


def test_an_error_in_the_training_waits_for_the_write_in_progress() -> None:
    written: list[int] = []
    started, failed = threading.Event(), threading.Event()

    def write(snapshot: Snapshot) -> None:
        started.set()
        failed.wait()
        written.append(snapshot.step)

    checkpointer = AsyncCheckpointer(write, Deadline(None), lambda: float("inf"), print)
    with pytest.raises(KeyboardInterrupt), checkpointer.wait_on_failure():
        checkpointer.save(Snapshot(3, 0.5, {}, {}))
        started.wait()
        assert written == []
        threading.Timer(0.05, failed.set).start()
        raise KeyboardInterrupt
    assert written == [3]


def test_a_slow_checkpoint_counts_at_once_and_a_quick_one_later() -> None:
    disk = Disk(cost=0.01)
    disk.write_and_wait(0)
    disk.cost = 4.0
    disk.write_and_wait(1)
    assert disk.checkpointer.recent_seconds == pytest.approx(4.0)
    disk.cost = 0.01
    disk.time += 10.0
    disk.write_and_wait(2)
    assert disk.checkpointer.recent_seconds == pytest.approx(2.0, abs=0.1)


def test_a_checkpoint_in_progress_counts_with_the_time_so_far() -> None:
    disk = Disk()
    disk.may_finish.clear()
    disk.checkpointer.save(snapshot(1))
    while not disk.attempts:
        pass
    disk.time += 7.0
    assert disk.checkpointer.recent_seconds == pytest.approx(7.0)
    disk.may_finish.set()
    assert disk.checkpointer.wait(10)


def test_none_is_due_where_the_disk_has_become_too_slow_for_the_time_left() -> None:
    disk = Disk(cost=0.01, seconds_left=7.0)
    disk.write_and_wait(0)
    disk.cost = 4.0
    disk.write_and_wait(1)
    disk.time += 1000
    assert not disk.checkpointer.is_due()
    disk.seconds_left = 8.1
    assert disk.checkpointer.is_due()


@pytest.mark.parametrize(("cost", "expected"), [(0.0001, 9), (0.02, 5), (2.0, 2)])
def test_probes_take_little_of_the_time(cost: float, expected: int) -> None:
    disk = Disk(cost=cost, seconds_left=1000.0)
    disk.probe_for(10.0)
    assert len(disk.probes) == pytest.approx(expected, abs=1)


def test_no_probe_soon_after_a_checkpoint_and_none_where_no_clock_is_read() -> None:
    disk = Disk(seconds_left=1000.0)
    for step in range(10):
        disk.write_and_wait(step)
        disk.probe_for(0.8)
    assert disk.probes == []
    disk.seconds_left = float("inf")
    disk.probe_for(10.0)
    assert disk.probes == []


def test_no_probe_beside_a_write() -> None:
    disk = Disk(seconds_left=1000.0)
    disk.may_finish.clear()
    disk.checkpointer.save(snapshot(1))
    disk.time += 100.0
    disk.checkpointer.probe_if_due()
    disk.may_finish.set()
    assert disk.checkpointer.wait(10)
    assert (disk.written, disk.probes) == ([1], [])


def test_a_probe_that_fails_says_nothing_and_is_tried_again() -> None:
    disk = Disk(seconds_left=1000.0)
    disk.failure = OSError(28, "No space left on device")
    disk.probe_for(5.0)
    assert len(disk.probes) >= 2
    assert disk.messages == []
    assert not disk.checkpointer.has_failed


def test_no_probe_shortly_before_the_end() -> None:
    disk = Disk(cost=3.0, seconds_left=0.9)
    disk.probe_for(10.0)
    assert disk.probes == []
    disk.seconds_left = 5.0
    disk.probe_for(10.0)
    assert len(disk.probes) == 1, "the next might take longer than there is time"
