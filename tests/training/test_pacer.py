"""Pacing on a simulated clock: the schedule always ends at exactly 1, and on time, whatever the machine does."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import pytest

from timebox.data.device.resize import WHOLE, Resizing
from timebox.training.pacer import ClockPacer, StepPacer


@dataclass
class Course:
    """What came of a simulated training: progress after each step, its seconds, and when it ended."""

    progress: list[float]
    seconds: list[float]
    ended_at: float
    steps_left: list[int]

    @property
    def advances(self) -> list[float]:
        return [b - a for a, b in pairwise([0.0, *self.progress])]


def course(
    budget: float,
    duration: Callable[[int, float], float],
    estimate: float = 1.0,
    pause: Callable[[int], float] = lambda step: 0.0,
    lag: int = 0,
    resizing: Resizing = WHOLE,
) -> Course:
    """Train until the pacer ends it.

    Args:
        duration: seconds of a step, given its number and the time.
        estimate: what the plan took a step to be.
        pause: seconds spent on something else after a step.
        lag: steps a device runs behind what is issued to it.
        resizing: makes some steps cheaper than ``duration`` says.
    """
    time = 50.0
    pacer = ClockPacer(lambda: 50.0 + budget - time, estimate, lambda: time, resizing=resizing)
    result = Course([], [], 0.0, [])
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
    assert pacer.next(0) is None, "once at its end, always at its end"
    assert pacer.steps_left == 0
    return result


def check_sound(result: Course, budget: float) -> None:
    """What holds whatever happens: rising, ending at exactly 1, at most one step late."""
    assert all(advance > 0 for advance in result.advances)
    assert result.progress[-1] == 1.0
    assert result.ended_at <= budget + max(result.seconds)


@pytest.mark.parametrize("estimate", [0.01, 0.1, 1.0])
def test_constant_speed_fills_the_time_evenly(estimate: float) -> None:
    result = course(60, lambda step, time: 0.1, estimate)
    check_sound(result, 60)
    assert 0.98 * 60 <= result.ended_at <= 60
    later = result.advances[20:]
    assert max(later) < 1.05 * min(later)


def test_an_exact_estimate_makes_every_step_equal() -> None:
    result = course(60, lambda step, time: 0.125, 0.125)
    assert len(result.progress) == 480
    assert result.advances == pytest.approx([1 / 480] * 480)
    assert result.steps_left == list(range(479, -1, -1))


def test_a_machine_that_slows_down_half_way() -> None:
    result = course(60, lambda step, time: 0.1 if time < 30 else 0.4, 0.1)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60
    half = result.progress[299]
    assert half == pytest.approx(0.5, abs=0.02)
    assert max(result.advances) < 5 / 600, "no leap: the rest is stretched"


def test_a_machine_that_speeds_up_half_way() -> None:
    result = course(60, lambda step, time: 0.4 if time < 30 else 0.1, 0.4)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60
    assert len(result.progress) > 340
    assert max(result.advances) < 1.2 / 150


@pytest.mark.parametrize("moment", [50, 55, 57, 58, 59, 59.5, 59.7, 59.9])
def test_a_slowdown_at_the_very_end(moment: float) -> None:
    """The step during which the time runs out is foreseen by nobody, and one more brings the schedule to its end."""
    result = course(60, lambda step, time: 0.1 if time < moment else 0.4, 0.1)
    assert result.progress[-1] == 1.0
    assert result.ended_at <= 60 + 2 * 0.4
    if moment <= 57:
        assert result.ended_at <= 60.0 + 1e-9
        assert max(result.advances) < 0.05


@pytest.mark.parametrize("at", [0, 5, 100, 300, 400])
def test_a_single_long_stall(at: int) -> None:
    result = course(60, lambda step, time: 15.0 if step == at else 0.1, 0.1)
    check_sound(result, 60)
    assert 0.99 * 60 <= result.ended_at <= 60.0 + 1e-9, "what is left after the stall is used"
    assert max(result.advances) < 1 / 100, "no leap: the rest of the schedule is stretched"


@pytest.mark.parametrize("at", [430, 440, 448])
def test_a_long_stall_with_little_time_left(at: int) -> None:
    check_sound(course(60, lambda step, time: 15.0 if step == at else 0.1, 0.1), 60)


@pytest.mark.parametrize("seconds", [[1.7], [1.0, 1.0], [1.7, 0.4], [0.8, 0.8, 0.8]])
def test_a_cold_start_does_not_use_up_the_schedule(seconds: list[float]) -> None:
    result = course(5, lambda step, time: seconds[step] if step < len(seconds) else 0.01, 0.01)
    check_sound(result, 5)
    assert 0.99 * 5 <= result.ended_at <= 5.0 + 1e-9
    assert len(result.progress) > 250
    assert result.progress[15] < 0.1
    assert max(result.advances) < 2 / 250


def test_a_stall_longer_than_all_the_time_left() -> None:
    result = course(60, lambda step, time: 100.0 if step == 300 else 0.1, 0.1)
    assert result.progress[-1] == 1.0
    assert len(result.progress) == 302, "one more step, which takes the schedule to its end"


def test_a_stutter_now_and_then() -> None:
    result = course(60, lambda step, time: 0.5 if step % 10 == 7 else 0.1, 0.1)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60


@pytest.mark.parametrize(("budget", "num_steps"), [(0.5, 1), (1.0, 1), (2.0, 2), (3.5, 3), (10.0, 10)])
def test_very_few_steps(budget: float, num_steps: int) -> None:
    result = course(budget, lambda step, time: 1.0)
    check_sound(result, budget)
    assert len(result.progress) == num_steps
    assert result.progress == pytest.approx([(i + 1) / num_steps for i in range(num_steps)])


def test_no_time_at_all_still_ends_the_schedule() -> None:
    assert course(-5.0, lambda step, time: 1.0).progress == [1.0]


def test_an_estimate_far_too_long_or_short_is_corrected() -> None:
    for estimate in (0.001, 0.1, 3.0):
        result = course(30, lambda step, time: 0.1, estimate)
        check_sound(result, 30)
        assert 280 <= len(result.progress) <= 300


def test_paused_time_is_not_taken_for_training() -> None:
    result = course(60, lambda step, time: 0.1, 0.1, pause=lambda step: 2.0 if step % 120 == 99 else 0.0)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.0 + 1e-9
    # 60 s less four or so pauses; were they measured as steps, far fewer would be thought to fit.
    assert max(result.advances) < 2 * min(result.advances)
    assert len(result.progress) > 480


def test_a_long_pause_before_the_first_step_does_not_count() -> None:
    time = 0.0
    pacer = ClockPacer(lambda: 100 - time, 1.0, lambda: time)
    time = 10.0
    pacer.restart_timer()
    pacer.next(0)
    time = 10.5
    pacer.count_finished(1)
    assert pacer.step_seconds == (3 * 1.0 + 0.5) / 4


def test_steps_in_flight_are_counted_in() -> None:
    result = course(60, lambda step, time: 0.1, 0.1, lag=8)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.1


@pytest.mark.parametrize("lag", [0, 8])
@pytest.mark.parametrize("estimate", [0.05, 0.1, 0.3])
def test_small_images_first_progress_runs_with_the_time(estimate: float, lag: int) -> None:
    resizing = Resizing(0.75, 0.6)
    result = course(60, lambda step, time: 0.1, estimate, lag=lag, resizing=resizing)
    check_sound(result, 60)
    assert 0.95 * 60 <= result.ended_at <= 60.1
    assert len(result.progress) == pytest.approx(resizing.steps_in(600), rel=0.03)
    small = [a for a, p in zip(result.advances, result.progress, strict=True) if 0.1 < p < 0.3]
    whole = [a for a, p in zip(result.advances, result.progress, strict=True) if p > 0.65]
    assert max(small) / min(whole[:-2]) == pytest.approx(0.75**2, rel=0.1)
    spent, total = 0.0, sum(result.seconds)
    for seconds, progress in zip(result.seconds, result.progress, strict=True):
        spent += seconds
        assert progress == pytest.approx(spent / total, abs=0.03)


def test_small_images_first_the_steps_left_are_real_steps() -> None:
    result = course(60, lambda step, time: 0.125, 0.125, resizing=Resizing(0.5, 0.8))
    total = len(result.progress)
    for step, left in enumerate(result.steps_left, 1):
        assert left == pytest.approx(total - step, abs=0.02 * total + 1)


@pytest.mark.parametrize("moment", [5, 20, 40, 55, 59])
@pytest.mark.parametrize("slower", [3, 20])
def test_small_images_first_and_a_machine_that_slows_down(moment: float, slower: float) -> None:
    """The rest of the schedule, sizes included, is gone through in the time that is left."""
    result = course(60, lambda step, time: 0.1 if time < moment else 0.1 * slower, 0.1, resizing=Resizing(0.75, 0.6))
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
    assert pacer.step_seconds == 2.0, "the estimate is forgotten"


def test_a_clock_too_coarse_for_its_steps() -> None:
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


def test_one_step_is_a_whole_schedule() -> None:
    pacer = StepPacer(1)
    assert [pacer.next(0), pacer.next(0)] == [1.0, None]
    pacer.count_finished(1)
    pacer.restart_timer()
