"""The landing of a schedule on a simulated clock: gradual and in time, whatever the machine does."""

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
class Flight:
    """A simulated training: where each step ended, when it began, how long it took, and when it was all over."""

    budget: float
    progress: list[float]
    began: list[float]
    seconds: list[float]

    @property
    def late(self) -> float:
        return self.began[-1] + self.seconds[-1] - self.budget

    @property
    def warmdown(self) -> list[float]:
        """The share of the landing that each of its steps takes."""
        steps = [b - a for a, b in pairwise([0.0, *self.progress]) if b > WARMDOWN_START + 1e-12]
        return [step / (1 - WARMDOWN_START) for step in steps]

    @property
    def landing_begins(self) -> float:
        return self.began[-len(self.warmdown)]


def fly(
    budget: float, duration: Callable[[float], float], overtime: float = 0.5, warmdown_start: float = WARMDOWN_START
) -> Flight:
    """Train until the pacer ends it; steps take ``duration`` seconds, given the time."""
    time = 0.0
    pacer = ClockPacer(lambda: budget - time, BASE, lambda: time, Warmdown(warmdown_start, overtime))
    flight = Flight(budget, [], [], [])
    while (progress := pacer.next(0)) is not None:
        assert len(flight.progress) < 10_000
        flight.progress.append(progress)
        flight.began.append(time)
        flight.seconds.append(duration(time))
        time += flight.seconds[-1]
        pacer.count_finished(1)
    assert flight.progress[-1] == 1.0
    assert all(b > a for a, b in pairwise([0.0, *flight.progress]))
    return flight


def changing(factor: float, change_at: float, stall: float = 0.0, stall_at: float = 0.0) -> Callable[[float], float]:
    """Steps of a second, ``factor`` times as long from a moment on, and one of them with a stall in it."""
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
def test_a_slowdown_at_any_moment(budget: float, factor: float, moment: float, overtime: float) -> None:
    flight = fly(budget, changing(factor, moment * budget), overtime)
    slowest = max(flight.seconds)
    # Nobody foresees the step in which the time runs out; one more brings the schedule to its end.
    assert flight.late <= overtime + 2 * slowest
    if moment * budget < flight.landing_begins - 20 * slowest:
        assert flight.late <= overtime + 1e-9, "a speed that is known is kept to"
    if budget - flight.landing_begins >= 10 * slowest:
        check_gradual(flight)


def check_gradual(flight: Flight) -> None:
    assert len(flight.warmdown) >= 5
    assert max(flight.warmdown) <= 0.4


@settings(examples, max_examples=100)
@given(budgets, st.floats(0.05, 1.0), moments, overtimes)
def test_a_speedup_at_any_moment(budget: float, factor: float, moment: float, overtime: float) -> None:
    """A machine that has become faster is never late, and the landing has as many steps as there is time for."""
    flight = fly(budget, changing(factor, moment * budget), overtime)
    assert flight.late <= overtime + 1e-9
    if budget - flight.landing_begins >= 10 * BASE:
        check_gradual(flight)


@examples
@given(budgets, st.floats(1.0, 9.0), moments, st.floats(0.0, 0.6), moments, overtimes)
def test_a_stall_and_a_slowdown_at_any_moments(
    budget: float, factor: float, moment: float, stall: float, stall_at: float, overtime: float
) -> None:
    flight = fly(budget, changing(factor, moment * budget, stall * budget, stall_at * budget), overtime)
    slow = factor * BASE
    assert flight.late <= overtime + max(flight.seconds) + slow
    stalled_in_landing = any(
        seconds > 2 * slow and began >= flight.landing_begins
        for began, seconds in zip(flight.began, flight.seconds, strict=True)
    )
    if not stalled_in_landing and budget - flight.landing_begins >= 10 * slow:
        check_gradual(flight)


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("factor", [1.0, 2.0, 5.0])
def test_with_the_speed_known_the_landing_takes_equal_steps(factor: float, moment: float) -> None:
    flight = fly(400.0, changing(factor, moment * 400))
    assert len(flight.warmdown) >= 5
    assert max(flight.warmdown) <= 1.3 * min(flight.warmdown)


@pytest.mark.parametrize("left", [4.5, 6.5, 9.5])
def test_after_a_stall_that_leaves_little_the_landing_gets_its_share_first(left: float) -> None:
    """The schedule leaps to its landing, and takes all steps but one for it."""
    flight = fly(200.0, changing(1.0, 999.0, stall=100.0 - left, stall_at=100.0), overtime=0.5)
    assert flight.progress[99] < 0.55
    assert len(flight.warmdown) == min(WARMDOWN_STEPS, int(left - BASE - BASE + 0.5))
    assert max(flight.warmdown) <= 1.01 * min(flight.warmdown)
    assert flight.late <= 0.5 + BASE


def test_the_landing_reaches_into_the_overtime_and_no_further() -> None:
    steps = {}
    for overtime in (0.0, 2.0, 4.0, 50.0):
        flight = fly(200.0, changing(1.0, 999.0, stall=97.0, stall_at=100.0), overtime)
        steps[overtime] = len(flight.warmdown)
        assert flight.late <= overtime + 1e-9
    assert steps[0.0] < steps[2.0] < steps[4.0] <= steps[50.0] == WARMDOWN_STEPS


def test_where_not_even_the_overtime_allows_two_steps_one_ends_it() -> None:
    flight = fly(200.0, changing(1.0, 999.0, stall=120.0, stall_at=100.0), overtime=0.5)
    assert len(flight.progress) == 102
    assert flight.late == pytest.approx(120 - 99 + 1)


def test_a_landing_is_its_share_of_the_schedule_where_time_abounds() -> None:
    flight = fly(400.0, lambda time: BASE)
    assert len(flight.warmdown) == pytest.approx(40, abs=1)
    assert max(flight.warmdown) <= 1.01 / 40


def test_without_a_landing_every_step_is_equal() -> None:
    flight = fly(40.0, lambda time: BASE, warmdown_start=1.0)
    assert flight.progress == pytest.approx([i / 40 for i in range(1, 41)])


def test_going_back_spreads_the_rest_over_the_time_left() -> None:
    time = 0.0
    pacer = ClockPacer(lambda: 100.0 - time, BASE, lambda: time, Warmdown(WARMDOWN_START, 0.5))
    progress: list[float] = []
    while (reached := pacer.next(0)) is not None:
        progress.append(reached)
        time += BASE
        pacer.count_finished(1)
        if len(progress) == 50:
            time += 7.0  # restoring takes time, which is no step's
            pacer.rewind(20, progress[19])
            assert pacer.step_seconds == BASE
    assert time <= 100.0 + 0.5
    assert progress[49] == pytest.approx(0.5, abs=0.01)
    assert 0.8 / 43 <= progress[50] - 0.2 <= 0.8 / (43 - WARMDOWN_STEPS)
    assert progress[-1] == 1.0
