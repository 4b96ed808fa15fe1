"""One schedule for several processes: all take the leader's decisions, decided a block ahead."""

from collections import deque

import pytest
from torch import Tensor

from timebox.training.data_parallel import MAX_BLOCK_STEPS, BroadcastSchedule, block_size_for
from timebox.training.pacer import ClockPacer, StepPacer
from timebox.training.schedule import PacedSchedule, StepPlan
from tiny import tiny_recipe


class Wire:
    """Stands for the group: what the leader sends, the others find when they wait for it."""

    def __init__(self) -> None:
        self.sent: deque[Tensor] = deque()

    def of(self, leads: bool) -> "End":
        return End(self, leads)


class End:
    """One end of a wire."""

    def __init__(self, wire: Wire, leads: bool) -> None:
        self._wire, self._leads = wire, leads
        self.num_under_way = 0

    def broadcast_async(self, numbers: Tensor) -> "Under":
        if self._leads:
            self._wire.sent.append(numbers.clone())
        self.num_under_way += 1
        return Under(self, numbers)

    def arrived(self, numbers: Tensor) -> None:
        self.num_under_way -= 1
        if not self._leads:
            numbers.copy_(self._wire.sent.popleft())


class Under:
    """A message under way."""

    def __init__(self, end: End, numbers: Tensor) -> None:
        self._end, self._numbers = end, numbers

    def wait(self) -> None:
        self._end.arrived(self._numbers)


def pair(num_steps: int, block: int) -> tuple[BroadcastSchedule, BroadcastSchedule, PacedSchedule]:
    wire = Wire()
    own = PacedSchedule(StepPacer(num_steps), tiny_recipe(), 32)
    leader = BroadcastSchedule(own, wire.of(leads=True), block, 32)  # type: ignore[arg-type]
    return leader, BroadcastSchedule(None, wire.of(leads=False), block, 32), own  # type: ignore[arg-type]


def together(leader: BroadcastSchedule, other: BroadcastSchedule) -> list[StepPlan]:
    taken = []
    while True:
        step_plan = leader.next(0)
        assert other.next(0) == step_plan
        if step_plan is None:
            assert leader.next(0) is None, "the end stays the end"
            assert other.next(0) is None
            return taken
        taken.append(step_plan)


@pytest.mark.parametrize("block", [1, 3, 8])
@pytest.mark.parametrize("num_steps", [1, 2, 8, 9, 16, 17])
def test_all_take_the_decisions_of_the_leader_to_the_end(num_steps: int, block: int) -> None:
    leader, other, _ = pair(num_steps, block)
    alone = PacedSchedule(StepPacer(num_steps), tiny_recipe(), 32)
    expected = [step_plan for _ in range(num_steps) if (step_plan := alone.next(0)) is not None]
    assert together(leader, other) == expected
    assert expected[-1].progress == 1.0


def test_the_next_block_is_under_way_while_one_is_taken() -> None:
    leader, _, own = pair(20, 4)
    leader.next(0)
    assert own.steps_left == 20 - 8
    assert leader.steps_left == 19, "what is decided and not taken is still to come"


def test_going_back_drops_what_was_decided_beyond() -> None:
    leader, other, _ = pair(20, 4)
    for _ in range(6):
        assert leader.next(0) == other.next(0)
    for schedule in (leader, other):
        schedule.lower_lr()
        schedule.rewind(5, 0.25)
    rest = together(leader, other)
    assert len(rest) == 15
    assert rest[0].progress == 0.3
    assert leader.lr_factor == other.lr_factor == 0.5
    usual = PacedSchedule(StepPacer(20), tiny_recipe(), 32)
    usual.rewind(5, 0.25)
    sixth = usual.next(0)
    assert sixth is not None
    assert rest[0].lr == 0.5 * sixth.lr


@pytest.mark.parametrize(
    ("step_seconds", "steps"), [(0.0, MAX_BLOCK_STEPS), (0.001, MAX_BLOCK_STEPS), (0.05, 5), (2.0, 1)]
)
def test_less_is_decided_at_once_where_steps_are_long(step_seconds: float, steps: int) -> None:
    assert block_size_for(step_seconds) == steps


@pytest.mark.parametrize("slower", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("step_seconds", [0.01, 0.1, 1.0])
def test_a_schedule_decided_ahead_ends_in_time_where_the_speed_changes(step_seconds: float, slower: float) -> None:
    """Half-way the machine becomes slower or faster."""
    moment, budget = 0.0, 60.0
    pacer = ClockPacer(lambda: budget - moment, step_seconds, lambda: moment)
    own = PacedSchedule(pacer, tiny_recipe(), 32)
    schedule = BroadcastSchedule(own, Wire().of(leads=True), block_size_for(step_seconds), 32)  # type: ignore[arg-type]
    progress = 0.0
    while (step_plan := schedule.next(0)) is not None:
        moment += step_seconds * (slower if progress > 0.5 else 1.0)
        pacer.count_finished(1)
        progress = step_plan.progress
    assert progress == 1.0
    assert 0.9 * budget < moment < budget + 3 * step_seconds * slower
