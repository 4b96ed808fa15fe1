"""The broadcast schedule: all ranks follow the plans of the main rank, sent one block ahead."""

from collections import deque

import pytest
from torch import Tensor

from timebox.training.data_parallel import MAX_BLOCK_STEPS, BroadcastSchedule, block_size_for
from timebox.training.pacer import ClockPacer, StepPacer
from timebox.training.schedule import PacedSchedule, StepPlan
from tiny import tiny_recipe


class FakeChannel:
    """In place of the process group: tensors sent by the main rank wait for the worker rank."""

    def __init__(self) -> None:
        self.sent: deque[Tensor] = deque()

    def end(self, is_main: bool) -> "FakeGroup":
        return FakeGroup(self, is_main)


class FakeGroup:
    """The process group of one rank."""

    def __init__(self, channel: FakeChannel, is_main: bool) -> None:
        self._channel, self._is_main = channel, is_main
        self.num_in_flight = 0

    def broadcast_async(self, numbers: Tensor) -> "FakeWork":
        if self._is_main:
            self._channel.sent.append(numbers.clone())
        self.num_in_flight += 1
        return FakeWork(self, numbers)

    def receive(self, numbers: Tensor) -> None:
        self.num_in_flight -= 1
        if not self._is_main:
            numbers.copy_(self._channel.sent.popleft())


class FakeWork:
    """A broadcast in flight."""

    def __init__(self, group: FakeGroup, numbers: Tensor) -> None:
        self._group, self._numbers = group, numbers

    def wait(self) -> None:
        self._group.receive(self._numbers)


def main_and_worker(num_steps: int, block_size: int) -> tuple[BroadcastSchedule, BroadcastSchedule, PacedSchedule]:
    channel = FakeChannel()
    own = PacedSchedule(StepPacer(num_steps), tiny_recipe(), 32)
    main = BroadcastSchedule(own, channel.end(is_main=True), block_size, 32)  # type: ignore[arg-type]
    return main, BroadcastSchedule(None, channel.end(is_main=False), block_size, 32), own  # type: ignore[arg-type]


def plans_of_both(main: BroadcastSchedule, worker: BroadcastSchedule) -> list[StepPlan]:
    step_plans = []
    while True:
        step_plan = main.next(0)
        assert worker.next(0) == step_plan
        if step_plan is None:
            assert main.next(0) is None, "no step follows the end"
            assert worker.next(0) is None
            return step_plans
        step_plans.append(step_plan)


@pytest.mark.parametrize("block_size", [1, 3, 8])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 9, 16, 17])
def test_all_ranks_follow_the_plans_of_the_main_rank(num_steps: int, block_size: int) -> None:
    main, worker, _ = main_and_worker(num_steps, block_size)
    alone = PacedSchedule(StepPacer(num_steps), tiny_recipe(), 32)
    expected = [step_plan for _ in range(num_steps) if (step_plan := alone.next(0)) is not None]
    assert plans_of_both(main, worker) == expected
    assert expected[-1].progress == 1.0


def test_the_next_block_is_in_flight_while_one_is_run() -> None:
    main, _, own = main_and_worker(20, 4)
    main.next(0)
    assert own.steps_left == 20 - 8
    assert main.steps_left == 19, "planned steps that have not been run are still to come"


def test_a_rewind_drops_the_plans_of_later_steps() -> None:
    main, worker, _ = main_and_worker(20, 4)
    for _ in range(6):
        assert main.next(0) == worker.next(0)
    for schedule in (main, worker):
        schedule.lower_lr()
        schedule.rewind(5, 0.25)
    rest = plans_of_both(main, worker)
    assert len(rest) == 15
    assert rest[0].progress == 0.3
    assert main.lr_factor == worker.lr_factor == 0.5
    usual = PacedSchedule(StepPacer(20), tiny_recipe(), 32)
    usual.rewind(5, 0.25)
    sixth = usual.next(0)
    assert sixth is not None
    assert rest[0].lr == 0.5 * sixth.lr


@pytest.mark.parametrize(
    ("step_seconds", "steps"), [(0.0, MAX_BLOCK_STEPS), (0.001, MAX_BLOCK_STEPS), (0.05, 5), (2.0, 1)]
)
def test_blocks_are_smaller_where_steps_are_longer(step_seconds: float, steps: int) -> None:
    assert block_size_for(step_seconds) == steps


@pytest.mark.parametrize("slower", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("step_seconds", [0.01, 0.1, 1.0])
def test_a_broadcast_schedule_ends_in_time_where_the_speed_changes(step_seconds: float, slower: float) -> None:
    """The machine becomes slower or faster at half of the schedule."""
    moment, budget = 0.0, 60.0
    pacer = ClockPacer(lambda: budget - moment, step_seconds, lambda: moment)
    own = PacedSchedule(pacer, tiny_recipe(), 32)
    schedule = BroadcastSchedule(own, FakeChannel().end(is_main=True), block_size_for(step_seconds), 32)  # type: ignore[arg-type]
    progress = 0.0
    while (step_plan := schedule.next(0)) is not None:
        moment += step_seconds * (slower if progress > 0.5 else 1.0)
        pacer.count_finished(1)
        progress = step_plan.progress
    assert progress == 1.0
    assert 0.9 * budget < moment < budget + 3 * step_seconds * slower
