"""The warmdown of a schedule on a simulated clock: gradual and in time, at any speed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timebox.training.pacer import WARMDOWN_STEPS, ClockPacer, Warmdown

WARMDOWN_START = 0.9
BASE = 1.0
examples = settings(derandomize=True, max_examples=300, deadline=None)


@dataclass
class SimulatedTraining:
    """Progress at the end of each step, its start time and its duration in seconds."""

    budget: float
    progress: list[float]
    started: list[float]
    seconds: list[float]

    @property
    def late(self) -> float:
        return self.started[-1] + self.seconds[-1] - self.budget

    @property
    def warmdown(self) -> list[float]:
        """Share of the warmdown of each of its steps."""
        steps = [b - a for a, b in pairwise([0.0, *self.progress]) if b > WARMDOWN_START + 1e-12]
        return [step / (1 - WARMDOWN_START) for step in steps]

    @property
    def warmdown_started_at(self) -> float:
        return self.started[-len(self.warmdown)]


def simulate(
    budget: float, duration: Callable[[float], float], overtime: float = 0.5, warmdown_start: float = WARMDOWN_START
) -> SimulatedTraining:
    """Simulate a training to the end of the schedule; ``duration`` returns the seconds of a step, from the time."""
    time = 0.0
    pacer = ClockPacer(lambda: budget - time, BASE, lambda: time, Warmdown(warmdown_start, overtime))
    training = SimulatedTraining(budget, [], [], [])
    while (progress := pacer.next(0)) is not None:
        assert len(training.progress) < 10_000
        training.progress.append(progress)
        training.started.append(time)
        training.seconds.append(duration(time))
        time += training.seconds[-1]
        pacer.count_finished(1)
    assert training.progress[-1] == 1.0
    assert all(b > a for a, b in pairwise([0.0, *training.progress]))
    return training


def changing(factor: float, change_at: float, stall: float = 0.0, stall_at: float = 0.0) -> Callable[[float], float]:
    """Steps of one second, ``factor`` times as long from ``change_at`` on; one step has a stall added."""
    stalls = [stall]

    def duration(time: float) -> float:
        stalled = stalls.pop() if stalls and time >= stall_at else 0.0
        return BASE * (factor if time >= change_at else 1.0) + stalled

    return duration


budgets = st.sampled_from([8.0, 15.0, 30.0, 100.0, 400.0])
factors = st.floats(1.0, 20.0)
moments = st.floats(0.0, 1.05)
overtimes = st.sampled_from([0.0, 0.5, 3.0])


@examples
@given(budgets, factors, moments, overtimes)
def test_a_slowdown_at_any_time(budget: float, factor: float, moment: float, overtime: float) -> None:
    training = simulate(budget, changing(factor, moment * budget), overtime)
    slowest = max(training.seconds)
    # The step in which the time runs out cannot be foreseen, and one more completes the schedule.
    assert training.late <= overtime + 2 * slowest
    if moment * budget < training.warmdown_started_at - 20 * slowest:
        assert training.late <= overtime + 1e-9, "a slowdown long before the warmdown is taken into account"
    if budget - training.warmdown_started_at >= 10 * slowest:
        check_gradual(training)


def check_gradual(training: SimulatedTraining) -> None:
    assert len(training.warmdown) >= 5
    assert max(training.warmdown) <= 0.4


@settings(examples, max_examples=100)
@given(budgets, st.floats(0.05, 1.0), moments, overtimes)
def test_a_speedup_at_any_time(budget: float, factor: float, moment: float, overtime: float) -> None:
    """A faster machine is never late, and the warmdown has as many steps as there is time for."""
    training = simulate(budget, changing(factor, moment * budget), overtime)
    assert training.late <= overtime + 1e-9
    if budget - training.warmdown_started_at >= 10 * BASE:
        check_gradual(training)


@examples
@given(budgets, st.floats(1.0, 9.0), moments, st.floats(0.0, 0.6), moments, overtimes)
def test_a_stall_and_a_slowdown_at_any_times(
    budget: float, factor: float, moment: float, stall: float, stall_at: float, overtime: float
) -> None:
    training = simulate(budget, changing(factor, moment * budget, stall * budget, stall_at * budget), overtime)
    slow = factor * BASE
    assert training.late <= overtime + max(training.seconds) + slow
    stalled_in_warmdown = any(
        seconds > 2 * slow and began >= training.warmdown_started_at
        for began, seconds in zip(training.started, training.seconds, strict=True)
    )
    if not stalled_in_warmdown and budget - training.warmdown_started_at >= 10 * slow:
        check_gradual(training)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0])
def test_at_a_steady_speed_the_steps_of_the_warmdown_are_equal(factor: float, moment: float) -> None:
    training = simulate(400.0, changing(factor, moment * 400))
    assert len(training.warmdown) >= 5
    assert max(training.warmdown) <= 1.3 * min(training.warmdown)


@pytest.mark.parametrize("left", [4.5, 6.5, 9.5])
def test_with_little_time_left_after_a_stall_the_warmdown_has_priority(left: float) -> None:
    """One step reaches the start of the warmdown, which has all others."""
    training = simulate(200.0, changing(1.0, 999.0, stall=100.0 - left, stall_at=100.0), overtime=0.5)
    assert training.progress[99] < 0.55
    assert len(training.warmdown) == min(WARMDOWN_STEPS, int(left - BASE - BASE + 0.5))
    assert max(training.warmdown) <= 1.01 * min(training.warmdown)
    assert training.late <= 0.5 + BASE


def test_the_warmdown_uses_the_overtime_and_no_more() -> None:
    steps = {}
    for overtime in (0.0, 2.0, 4.0, 50.0):
        training = simulate(200.0, changing(1.0, 999.0, stall=97.0, stall_at=100.0), overtime)
        steps[overtime] = len(training.warmdown)
        assert training.late <= overtime + 1e-9
    assert steps[0.0] < steps[2.0] < steps[4.0] <= steps[50.0] == WARMDOWN_STEPS


def test_without_time_for_two_steps_one_step_completes_the_schedule() -> None:
    training = simulate(200.0, changing(1.0, 999.0, stall=120.0, stall_at=100.0), overtime=0.5)
    assert len(training.progress) == 102
    assert training.late == pytest.approx(120 - 99 + 1)


def test_with_enough_time_the_warmdown_has_its_share_of_the_steps() -> None:
    training = simulate(400.0, lambda time: BASE)
    assert len(training.warmdown) == pytest.approx(40, abs=1)
    assert max(training.warmdown) <= 1.01 / 40


def test_without_a_warmdown_all_steps_are_equal() -> None:
    training = simulate(40.0, lambda time: BASE, warmdown_start=1.0)
    assert training.progress == pytest.approx([i / 40 for i in range(1, 41)])


def test_after_a_rollback_the_rest_is_spread_over_the_time_left() -> None:
    time = 0.0
    pacer = ClockPacer(lambda: 100.0 - time, BASE, lambda: time, Warmdown(WARMDOWN_START, 0.5))
    progress: list[float] = []
    while (reached := pacer.next(0)) is not None:
        progress.append(reached)
        time += BASE
        pacer.count_finished(1)
        if len(progress) == 50:
            time += 7.0  # restoring takes time that belongs to no step
            pacer.rewind(20, progress[19])
            assert pacer.step_seconds == BASE
    assert time <= 100.0 + 0.5
    assert progress[49] == pytest.approx(0.5, abs=0.01)
    assert 0.8 / 43 <= progress[50] - 0.2 <= 0.8 / (43 - WARMDOWN_STEPS)
    assert progress[-1] == 1.0
