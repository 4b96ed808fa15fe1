"""Schedules: step plans from the recipe, and from a recorded training."""

import pytest

from timebox.errors import RunError
from timebox.recipes import Recipe
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule, ReplaySchedule, StepPlan, lr_and_momentum_at, warmdown_start
from tiny import tiny_recipe


class FakePacer:
    """A pacer with a given time per step, which records its calls."""

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


def remaining_plans(schedule: PacedSchedule | ReplaySchedule) -> list[StepPlan]:
    step_plans = []
    while (step_plan := schedule.next(0)) is not None:
        step_plans.append(step_plan)
    return step_plans


def test_step_plans_follow_the_recipe() -> None:
    recipe = tiny_recipe()
    step_plans = remaining_plans(PacedSchedule(StepPacer(10), recipe, 16))
    assert [d.progress for d in step_plans] == pytest.approx([i / 10 for i in range(1, 11)])
    assert [(d.lr, d.momentum) for d in step_plans] == [lr_and_momentum_at(recipe, d.progress) for d in step_plans]
    assert {d.micro_batch for d in step_plans} == {16}
    assert step_plans[-1].lr == 0.0


def test_the_pacer_receives_all_calls() -> None:
    pacer = FakePacer(0.25)
    schedule = PacedSchedule(pacer, tiny_recipe(), 16)
    assert (schedule.pacer.step_seconds, schedule.steps_left) == (0.25, 20)
    schedule.next(3)
    schedule.pacer.count_finished(2)
    schedule.pacer.restart_timer()
    schedule.rewind(7, 0.35)
    assert pacer.calls == [("next", (3,)), ("count_finished", (2,)), ("restart_timer", ()), ("rewind", (7, 0.35))]
    assert schedule.steps_left == 19


def test_lower_lr_halves_all_later_learning_rates_and_nothing_else() -> None:
    recipe = tiny_recipe()
    usual = remaining_plans(PacedSchedule(StepPacer(12), recipe, 16))
    schedule = PacedSchedule(StepPacer(12), recipe, 16)
    lowered = []
    for step in range(12):
        if step in (4, 8):
            schedule.lower_lr()
        lowered.append(schedule.next(0))
    factors = [1.0] * 4 + [0.5] * 4 + [0.25] * 4
    assert [d.lr for d in lowered if d] == [d.lr * factor for d, factor in zip(usual, factors, strict=True)]
    assert [d.momentum for d in lowered if d] == [d.momentum for d in usual]
    assert schedule.lr_factor == 0.25


def test_a_rewind_repeats_the_step_plans_at_the_present_lr_factor() -> None:
    schedule = PacedSchedule(StepPacer(10), tiny_recipe(), 16)
    first = [schedule.next(0) for _ in range(7)]
    schedule.lower_lr()
    schedule.rewind(3, 0.3)
    assert schedule.steps_left == 7
    again = schedule.next(0)
    assert again and first[3]
    assert (again.progress, again.lr) == (first[3].progress, first[3].lr / 2)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.0])
def test_a_step_of_up_to_a_second_is_not_split(seconds: float) -> None:
    schedule = PacedSchedule(FakePacer(seconds), tiny_recipe(batch_size=64), 64)
    assert {step_plan.micro_batch for step_plan in remaining_plans(schedule)} == {64}


@pytest.mark.parametrize(("seconds", "micro_batch"), [(1.01, 32), (2.1, 16), (4.1, 8), (100.0, 8)])
def test_the_micro_batch_is_halved_while_it_takes_more_than_a_second(seconds: float, micro_batch: int) -> None:
    """Not below one normalisation group, here of 8 images, which would change the result."""
    schedule = PacedSchedule(FakePacer(seconds), tiny_recipe(batch_size=64), 64)
    sizes = [step_plan.micro_batch for step_plan in remaining_plans(schedule)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == schedule.micro_batch == micro_batch


def test_the_micro_batch_never_grows_again() -> None:
    pacer = FakePacer(1.5)
    schedule = PacedSchedule(pacer, tiny_recipe(batch_size=64), 64)
    schedule.next(0)
    pacer.step_seconds = 0.1
    assert {step_plan.micro_batch for step_plan in remaining_plans(schedule)} == {32}


def test_a_micro_batch_of_one_group_is_not_halved() -> None:
    schedule = PacedSchedule(FakePacer(50.0), tiny_recipe(batch_size=64, ghost_size=0), 32)
    assert {step_plan.micro_batch for step_plan in remaining_plans(schedule)} == {32}


def test_a_replay_repeats_the_recorded_step_plans() -> None:
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
    assert remaining_plans(schedule) == step_plans
    assert schedule.steps_left == 0
    assert schedule.next(9) is None, "no step follows the end"
    schedule.rewind(1, 0.25)
    assert remaining_plans(schedule) == step_plans[1:]


def test_a_replay_cannot_lower_the_learning_rate() -> None:
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
def test_the_warmdown_begins_where_the_learning_rate_stays_below_a_tenth(recipe: Recipe) -> None:
    warmdown = warmdown_start(recipe)
    assert 0 < warmdown < 1
    later = [lr_and_momentum_at(recipe, warmdown + (1 - warmdown) * i / 997)[0] for i in range(998)]
    assert max(later) <= 0.1 * recipe.max_lr * (1 + 1e-9)
    assert lr_and_momentum_at(recipe, warmdown - 0.002)[0] > 0.1 * recipe.max_lr, "and not later"


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(policy="constant"),
        tiny_recipe(end_fraction=0.2, start_fraction=0.5),
        tiny_recipe(policy="triangular", start_fraction=0.3),
        tiny_recipe(policy="piecewise", end_fraction=0.5),
    ],
)
def test_a_learning_rate_that_stays_high_has_no_warmdown(recipe: Recipe) -> None:
    assert warmdown_start(recipe) == 1.0
