"""What a schedule decides for each step, and how a recorded one repeats it."""

import pytest

from timebox.errors import RunError
from timebox.recipe import Recipe
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule, ReplaySchedule, StepPlan, lr_and_momentum_at, warmdown_start
from tiny import tiny_recipe


class FakePacer:
    """A pacer whose steps take as long as the test says; keeps what it was told."""

    def __init__(self, step_seconds: float = 0.0, num_steps: int = 20) -> None:
        self.step_seconds = step_seconds
        self.steps_left = num_steps
        self.calls: list[tuple[str, tuple[float, ...]]] = []

    def next(self, num_unfinished: int) -> float | None:
        self.calls.append(("next", (num_unfinished,)))
        if not self.steps_left:
            return None
        self.steps_left -= 1
        return 1 - self.steps_left / 20

    def count_finished(self, num_steps: int) -> None:
        self.calls.append(("count_finished", (num_steps,)))

    def restart_timer(self) -> None:
        self.calls.append(("restart_timer", ()))

    def rewind(self, step: int, progress: float) -> None:
        self.calls.append(("rewind", (step, progress)))


def decided(schedule: PacedSchedule | ReplaySchedule) -> list[StepPlan]:
    step_plans = []
    while (step_plan := schedule.next(0)) is not None:
        step_plans.append(step_plan)
    return step_plans


def test_decisions_follow_the_recipe() -> None:
    recipe = tiny_recipe()
    step_plans = decided(PacedSchedule(StepPacer(10), recipe, 16))
    assert [d.progress for d in step_plans] == pytest.approx([i / 10 for i in range(1, 11)])
    assert [(d.lr, d.momentum) for d in step_plans] == [lr_and_momentum_at(recipe, d.progress) for d in step_plans]
    assert {d.micro_batch for d in step_plans} == {16}
    assert step_plans[-1].lr == 0.0


def test_the_pacer_is_told_everything() -> None:
    pacer = FakePacer(0.25)
    schedule = PacedSchedule(pacer, tiny_recipe(), 16)
    assert (schedule.pacer.step_seconds, schedule.steps_left) == (0.25, 20)
    schedule.next(3)
    schedule.pacer.count_finished(2)
    schedule.pacer.restart_timer()
    schedule.rewind(7, 0.35)
    assert pacer.calls == [("next", (3,)), ("count_finished", (2,)), ("restart_timer", ()), ("rewind", (7, 0.35))]
    assert schedule.steps_left == 19


def test_slowing_down_halves_all_later_rates_and_nothing_else() -> None:
    recipe = tiny_recipe()
    usual = decided(PacedSchedule(StepPacer(12), recipe, 16))
    schedule = PacedSchedule(StepPacer(12), recipe, 16)
    slower = []
    for step in range(12):
        if step in (4, 8):
            schedule.lower_lr()
        slower.append(schedule.next(0))
    factors = [1.0] * 4 + [0.5] * 4 + [0.25] * 4
    assert [d.lr for d in slower if d] == [d.lr * factor for d, factor in zip(usual, factors, strict=True)]
    assert [d.momentum for d in slower if d] == [d.momentum for d in usual]
    assert schedule.lr_factor == 0.25


def test_rewinding_repeats_the_decisions_at_the_rate_as_it_is_now() -> None:
    schedule = PacedSchedule(StepPacer(10), tiny_recipe(), 16)
    first = [schedule.next(0) for _ in range(7)]
    schedule.lower_lr()
    schedule.rewind(3, 0.3)
    assert schedule.steps_left == 7
    again = schedule.next(0)
    assert again and first[3]
    assert (again.progress, again.lr) == (first[3].progress, first[3].lr / 2)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0])
def test_a_step_of_up_to_a_second_stays_whole(seconds: float) -> None:
    schedule = PacedSchedule(FakePacer(seconds), tiny_recipe(batch_size=64), 64)
    assert {step_plan.micro_batch for step_plan in decided(schedule)} == {64}


@pytest.mark.parametrize(("seconds", "part"), [(1.01, 32), (2.1, 16), (4.1, 8), (100.0, 8)])
def test_parts_are_halved_while_one_lasts_longer_than_a_second(seconds: float, part: int) -> None:
    """Not below one normalisation group, here of 8: that would be another arithmetic."""
    schedule = PacedSchedule(FakePacer(seconds), tiny_recipe(batch_size=64), 64)
    parts = [step_plan.micro_batch for step_plan in decided(schedule)]
    assert parts == sorted(parts, reverse=True)
    assert parts[-1] == schedule.micro_batch == part


def test_parts_stay_small_once_they_are() -> None:
    """Whether they could grow again is nothing a training has to find out."""
    pacer = FakePacer(1.5)
    schedule = PacedSchedule(pacer, tiny_recipe(batch_size=64), 64)
    schedule.next(0)
    pacer.step_seconds = 0.1
    assert {step_plan.micro_batch for step_plan in decided(schedule)} == {32}


def test_parts_that_the_plan_made_smaller_than_a_group_stay_as_they_are() -> None:
    schedule = PacedSchedule(FakePacer(50.0), tiny_recipe(batch_size=64, ghost_size=0), 32)
    assert {step_plan.micro_batch for step_plan in decided(schedule)} == {32}


def test_a_recorded_schedule_repeats_what_was_decided() -> None:
    step_plans = [StepPlan(0.25, 0.5, 0.9, 16), StepPlan(0.5, 0.25, 0.8, 8), StepPlan(1.0, 0.0, 0.9, 8)]
    schedule = ReplaySchedule(step_plans)
    assert (schedule.micro_batch, schedule.lr_factor, schedule.pacer.step_seconds, schedule.steps_left) == (
        16,
        1.0,
        0.0,
        3,
    )
    schedule.pacer.count_finished(5)
    schedule.pacer.restart_timer()
    assert decided(schedule) == step_plans
    assert schedule.steps_left == 0
    assert schedule.next(9) is None, "once at its end, always at its end"
    schedule.rewind(1, 0.25)
    assert decided(schedule) == step_plans[1:]


def test_a_recorded_schedule_does_not_slow_down() -> None:
    schedule = ReplaySchedule([StepPlan(1.0, 0.0, 0.9, 8)])
    with pytest.raises(
        RunError, match=r"^a step of the replay failed that did not fail in the run: the replay differs"
    ):
        schedule.lower_lr()


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(),
        tiny_recipe(start_fraction=0.3),
        tiny_recipe(start_fraction=0.01),
        tiny_recipe(end_fraction=0.05, start_fraction=0.5),
        tiny_recipe(policy="triangular", num_cycles=1, start_fraction=0.0),
        tiny_recipe(policy="triangular", num_cycles=5, start_fraction=0.02),
        tiny_recipe(policy="piecewise", peak_at=0.2, down_at=0.9, end_fraction=0.0),
        tiny_recipe(policy="piecewise", peak_at=0.2, down_at=1.0, end_fraction=0.01),
    ],
)
def test_the_landing_begins_where_the_rate_is_below_a_tenth_for_good(recipe: Recipe) -> None:
    warmdown = warmdown_start(recipe)
    assert 0 < warmdown < 1
    later = [lr_and_momentum_at(recipe, warmdown + (1 - warmdown) * i / 997)[0] for i in range(998)]
    assert max(later) <= 0.1 * recipe.max_lr * (1 + 1e-9)
    assert lr_and_momentum_at(recipe, warmdown - 0.002)[0] > 0.1 * recipe.max_lr, "not later than it must"


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(policy="constant"),
        tiny_recipe(end_fraction=0.2, start_fraction=0.5),
        tiny_recipe(policy="triangular", start_fraction=0.3),
        tiny_recipe(policy="piecewise", end_fraction=0.5),
    ],
)
def test_a_rate_that_stays_high_has_no_landing(recipe: Recipe) -> None:
    assert warmdown_start(recipe) == 1.0
