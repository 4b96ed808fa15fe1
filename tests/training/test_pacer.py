"""Pacers on a simulated clock: the schedule ends at a progress of exactly 1, and in time, at any speed."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from timebox.data.device.resize import FULL_SIZE, Resizing
from timebox.training.pacer import ClockPacer, StepPacer


@dataclass
class SimulatedTraining:
    """Progress after each step, seconds of each step, end of the training, and steps left after each step."""

    progress: list[float]
    seconds: list[float]
    ended_at: float
    steps_left: list[int]

    @property
    def advances(self) -> list[float]:
        return [b - a for a, b in pairwise([0.0, *self.progress])]


def simulate(
    budget: float,
    duration: Callable[[int, float], float],
    estimate: float = 1.0,
    pause: Callable[[int], float] = lambda step: 0.0,
    lag: int = 0,
    resizing: Resizing = FULL_SIZE,
) -> SimulatedTraining:
    """Simulate a training to the end of the schedule.

    Args:
        duration: seconds of a full-size step, from its number and the time.
        estimate: seconds per step that the plan expected.
        pause: seconds without training after a step.
        lag: steps by which the device lags behind.
        resizing: makes early steps shorter than ``duration``.
    """
    time = 50.0
    pacer = ClockPacer(lambda: 50.0 + budget - time, estimate, lambda: time, resizing=resizing)
    result = SimulatedTraining([], [], 0.0, [])
    pending = 0

    def seconds_of(step: int) -> float:
        began = result.progress[step - 1] if step else 0.0
        return duration(step, time - 50.0) * resizing.cost_at(began)

    while (progress := pacer.next(pending)) is not None:
        step = len(result.progress)
        assert step < 100_000
        result.progress.append(progress)
        result.steps_left.append(pacer.steps_left)
        pending += 1
        if pending > lag:
            result.seconds.append(seconds_of(len(result.seconds)))
            time += result.seconds[-1]
            pacer.count_finished(1)
            pending -= 1
        if pause(step):
            time += pause(step)
            pacer.restart_timer()
    for _ in range(pending):
        result.seconds.append(seconds_of(len(result.seconds)))
        time += result.seconds[-1]
    result.ended_at = time - 50.0
    assert pacer.next(0) is None, "no step follows the end"
    assert pacer.steps_left == 0
    return result


def check_schedule(result: SimulatedTraining, budget: float) -> None:
    """Progress rises and ends at exactly 1, at most one step late."""
    assert all(advance > 0 for advance in result.advances)
    assert result.progress[-1] == 1.0
    assert result.ended_at <= budget + max(result.seconds)


@pytest.mark.parametrize("estimate", [0.01, 0.1, 1.0])
def test_at_constant_speed_steps_are_equal_and_fill_the_time(estimate: float) -> None:
    result = simulate(60, lambda step, time: 0.1, estimate)
    check_schedule(result, 60)
    assert 0.98 * 60 <= result.ended_at <= 60
    later = result.advances[20:]
    assert max(later) < 1.05 * min(later)


def test_with_an_exact_estimate_all_steps_are_equal() -> None:
    result = simulate(60, lambda step, time: 0.125, 0.125)
    assert len(result.progress) == 480
    assert result.advances == pytest.approx([1 / 480] * 480)
    assert result.steps_left == list(range(479, -1, -1))


def test_a_slowdown_at_half_time() -> None:
    result = simulate(60, lambda step, time: 0.1 if time < 30 else 0.4, 0.1)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60
    half = result.progress[299]
    assert half == pytest.approx(0.5, abs=0.02)
    assert max(result.advances) < 5 / 600, "the rest is spread evenly"


def test_a_speedup_at_half_time() -> None:
    result = simulate(60, lambda step, time: 0.4 if time < 30 else 0.1, 0.4)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60
    assert len(result.progress) > 340
    assert max(result.advances) < 1.2 / 150


@pytest.mark.parametrize("moment", [50, 55, 57, 58, 59, 59.5, 59.7, 59.9])
def test_a_slowdown_at_the_very_end(moment: float) -> None:
    """The step during which the time runs out cannot be foreseen, and one more completes the schedule."""
    result = simulate(60, lambda step, time: 0.1 if time < moment else 0.4, 0.1)
    assert result.progress[-1] == 1.0
    assert result.ended_at <= 60 + 2 * 0.4
    if moment <= 57:
        assert result.ended_at <= 60.0 + 1e-9
        assert max(result.advances) < 0.05


@pytest.mark.parametrize("at", [0, 5, 100, 300, 400])
def test_a_single_long_stall(at: int) -> None:
    result = simulate(60, lambda step, time: 15.0 if step == at else 0.1, 0.1)
    check_schedule(result, 60)
    assert 0.99 * 60 <= result.ended_at <= 60.0 + 1e-9, "the time left after the stall is used"
    assert max(result.advances) < 1 / 100, "the rest of the schedule is spread evenly"


@pytest.mark.parametrize("at", [430, 440, 448])
def test_a_long_stall_with_little_time_left(at: int) -> None:
    check_schedule(simulate(60, lambda step, time: 15.0 if step == at else 0.1, 0.1), 60)


@pytest.mark.parametrize("seconds", [[1.7], [1.0, 1.0], [1.7, 0.4], [0.8, 0.8, 0.8]])
def test_a_cold_start_advances_the_schedule_little(seconds: list[float]) -> None:
    result = simulate(5, lambda step, time: seconds[step] if step < len(seconds) else 0.01, 0.01)
    check_schedule(result, 5)
    assert 0.99 * 5 <= result.ended_at <= 5.0 + 1e-9
    assert len(result.progress) > 250
    assert result.progress[15] < 0.1
    assert max(result.advances) < 2 / 250


@pytest.mark.parametrize("slowdown", [8, 20, 40, 90])
@pytest.mark.parametrize("begins_at", [20, 40, 50, 56])
def test_steps_that_stay_slow_are_no_stalls(slowdown: int, begins_at: float) -> None:
    """As with several programs that come to the same processors: two threads wait for each other at every operation."""
    result = simulate(60, lambda step, time: 0.1 if time < begins_at else 0.1 * slowdown, 0.1)
    assert result.progress[-1] == 1.0
    # Until two steps are slow, nobody knows that they stay so.
    slow_steps_left = (60 - begins_at) / (0.1 * slowdown)
    assert result.ended_at <= 60 + (1e-9 if slow_steps_left > 8 else 2 * 0.1 * slowdown)


@pytest.mark.parametrize("num_slow", [2, 3, 6])
def test_after_a_load_has_gone_the_time_left_is_used(num_slow: int) -> None:
    """Some steps of five seconds among those of a tenth: what is left is spread over the time left all the same."""
    result = simulate(60, lambda step, time: 5.0 if 100 <= step < 100 + num_slow else 0.1, 0.1)
    check_schedule(result, 60)
    assert result.ended_at >= 0.98 * 60
    assert max(result.advances) < (0.02 if num_slow < 4 else 0.2)


@pytest.mark.parametrize("every", [3, 5, 8])
def test_stalls_that_come_again_and_again_are_waited_for(every: int) -> None:
    """The last step may be one of them: beside other programs steps of 0.1 s take three seconds now and then."""
    result = simulate(60, lambda step, time: 3.0 if step > 50 and step % every == 0 else 0.1, 0.1)
    assert result.progress[-1] == 1.0
    assert 0.85 * 60 <= result.ended_at <= 60.0 + 1e-9


def test_a_stall_longer_than_the_time_left() -> None:
    result = simulate(60, lambda step, time: 100.0 if step == 300 else 0.1, 0.1)
    assert result.progress[-1] == 1.0
    assert len(result.progress) == 302, "one more step completes the schedule"


def test_frequent_short_stalls() -> None:
    result = simulate(60, lambda step, time: 0.5 if step % 10 == 7 else 0.1, 0.1)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60


@pytest.mark.parametrize(("budget", "num_steps"), [(0.5, 1), (1.0, 1), (2.0, 2), (3.5, 3), (10.0, 10)])
def test_very_few_steps(budget: float, num_steps: int) -> None:
    result = simulate(budget, lambda step, time: 1.0)
    check_schedule(result, budget)
    assert len(result.progress) == num_steps
    assert result.progress == pytest.approx([(i + 1) / num_steps for i in range(num_steps)])


def test_without_any_time_one_step_completes_the_schedule() -> None:
    assert simulate(-5.0, lambda step, time: 1.0).progress == [1.0]


def test_a_wrong_estimate_is_corrected_by_measurements() -> None:
    for estimate in (0.001, 0.1, 3.0):
        result = simulate(30, lambda step, time: 0.1, estimate)
        check_schedule(result, 30)
        assert 280 <= len(result.progress) <= 300


def test_pauses_do_not_count_as_training_time() -> None:
    result = simulate(60, lambda step, time: 0.1, 0.1, pause=lambda step: 2.0 if step % 120 == 99 else 0.0)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.0 + 1e-9
    # 60 s less about four pauses. If these were measured as steps, far fewer steps would seem to fit.
    assert max(result.advances) < 2 * min(result.advances)
    assert len(result.progress) > 480


def test_a_pause_before_the_first_step_does_not_count() -> None:
    time = 0.0
    pacer = ClockPacer(lambda: 100 - time, 1.0, lambda: time)
    time = 10.0
    pacer.restart_timer()
    pacer.next(0)
    time = 10.5
    pacer.count_finished(1)
    assert pacer.step_seconds == (3 * 1.0 + 0.5) / 4


def test_steps_in_flight_are_taken_into_account() -> None:
    result = simulate(60, lambda step, time: 0.1, 0.1, lag=8)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.1


@pytest.mark.parametrize("lag", [0, 8])
@pytest.mark.parametrize("estimate", [0.05, 0.1, 0.3])
def test_with_growing_images_progress_is_proportional_to_time(estimate: float, lag: int) -> None:
    resizing = Resizing(0.75, 0.6)
    result = simulate(60, lambda step, time: 0.1, estimate, lag=lag, resizing=resizing)
    check_schedule(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.1
    assert len(result.progress) == pytest.approx(resizing.steps_in(600), rel=0.03)
    small = [a for a, p in zip(result.advances, result.progress, strict=True) if 0.1 < p < 0.3]
    whole = [a for a, p in zip(result.advances, result.progress, strict=True) if p > 0.65]
    assert max(small) / min(whole[:-2]) == pytest.approx(0.75**2, rel=0.1)
    spent, total = 0.0, sum(result.seconds)
    for seconds, progress in zip(result.seconds, result.progress, strict=True):
        spent += seconds
        assert progress == pytest.approx(spent / total, abs=0.03)


def test_with_growing_images_steps_left_are_not_full_size_steps() -> None:
    result = simulate(60, lambda step, time: 0.125, 0.125, resizing=Resizing(0.5, 0.8))
    total = len(result.progress)
    for step, left in enumerate(result.steps_left, 1):
        assert left == pytest.approx(total - step, abs=0.02 * total + 1)


@pytest.mark.parametrize("moment", [5, 20, 40, 55, 59])
@pytest.mark.parametrize("slower", [3, 20])
def test_with_growing_images_a_slowdown_at_any_time(moment: float, slower: float) -> None:
    """The rest of the schedule, image sizes included, is spread over the time left."""
    result = simulate(60, lambda step, time: 0.1 if time < moment else 0.1 * slower, 0.1, resizing=Resizing(0.75, 0.6))
    assert result.progress[-1] == 1.0
    assert result.ended_at <= 60 + 2 * 0.1 * slower


def test_several_steps_finished_at_once() -> None:
    time = 0.0
    pacer = ClockPacer(lambda: 100 - time, 1.0, lambda: time)
    pacer.count_finished(0)
    assert pacer.step_seconds == 1.0
    time = 8.0
    pacer.count_finished(4)
    assert pacer.step_seconds == (3 * 1.0 + 8.0) / (3 + 4)
    for _ in range(ClockPacer.WINDOW):
        time += 6.0
        pacer.count_finished(3)
    assert pacer.step_seconds == 2.0, "the estimate has left the window"


def test_a_clock_that_does_not_advance() -> None:
    pacer = ClockPacer(lambda: 1.0, 0.001, lambda: 0.0)
    for _ in range(20):
        pacer.count_finished(1)
    assert pacer.next(0) is not None


def test_a_fixed_number_of_equal_steps() -> None:
    pacer = StepPacer(7)
    assert pacer.steps_left == 7
    progress = [pacer.next(3) for _ in range(9)]
    assert progress[:7] == pytest.approx([i / 7 for i in range(1, 8)])
    assert progress[6:] == [1.0, None, None]
    assert pacer.steps_left == 0


def test_a_schedule_of_one_step() -> None:
    pacer = StepPacer(1)
    assert [pacer.next(0), pacer.next(0)] == [1.0, None]
    pacer.count_finished(1)
    pacer.restart_timer()
