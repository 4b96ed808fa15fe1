"""The planner: the split of the budget, batch size, recipe selection, and refused requests."""

from collections.abc import Callable
from contextlib import contextmanager
from math import inf

import numpy as np
import pytest
import torch

from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.errors import BudgetError, UsageError
from timebox.planning.budget import ScoringLoad
from timebox.planning.plan import Plan
from timebox.planning.planner import make_plan
from timebox.planning.selection import Hardware, PlanRequest
from timebox.planning.throughput import benchmark
from timebox.planning.throughput.benchmark import ThroughputBenchmark
from timebox.recipes import Recipe
from timebox.run.model_config import PlanRecord
from timebox.runtime import precision
from timebox.runtime import timing as speed
from timebox.runtime.write_speed import WriteSpeed
from tiny import CPU, bands

SMALL = ["width=4", "crop_padding=1", "min_steps=40"]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.moment = 0.0

    def __call__(self) -> float:
        return self.moment


def fake_measurements(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[ThroughputBenchmark, Recipe], float]) -> None:
    """Replace the measurement of training throughput by a function of benchmark and recipe, in seconds per image."""
    for name in ("training_seconds_per_image", "remeasure"):
        monkeypatch.setattr(ThroughputBenchmark, name, seconds)


def work(recipe: Recipe) -> float:
    """Operations per image of a recipe, relative to one network of width 8."""
    return recipe.ensemble_size * recipe.width**2 / 64 * recipe.input_scale**2


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """machine(training, scoring) fakes a machine with these seconds per image; for ``auto`` times the work."""

    def put(training: float, scoring: float) -> None:
        fake_measurements(monkeypatch, lambda self, recipe: training * (work(recipe) if recipe.name == "auto" else 1))
        monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: scoring)
        monkeypatch.setattr(
            ThroughputBenchmark, "seconds_by_work", lambda self, narrow, wide: lambda recipe: work(recipe) * training
        )
        monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)

    return put


def planned(
    recipe: str = "haet2021",
    settings: list[str] = SMALL,
    *,
    train: ImageDataset | None = None,
    scoring: ScoringLoad | None = None,
    budget: float | None = None,
    elapsed: float = 0.0,
    steps: int | None = None,
    file_seconds: float = 0.0,
    byte_seconds: float = 0.0,
    name: str = "auto",
) -> Plan:
    clock = Clock()
    deadline = Deadline(budget, now=clock)
    clock.moment = elapsed
    scoring = scoring or ScoringLoad(0, 0)
    request = PlanRequest(recipe, tuple(settings), train or bands(600), scoring, Hardware(CPU, name), "photos/")
    return make_plan(request, deadline, steps, WriteSpeed(file_seconds, lambda: byte_seconds))


def refusal(error: type[UsageError], call: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_time_left_is_split(machine: Callable[[float, float], None]) -> None:
    machine(0.001, 0.0001)
    plan = planned(budget=100, elapsed=10, file_seconds=0.2, scoring=ScoringLoad(200, 1000))
    assert plan.finish_seconds == pytest.approx(1.3 * 6 * 0.2 + 0.8 + 1.0)
    assert plan.reserve_seconds == pytest.approx(plan.finish_seconds + 8 * plan.step_seconds)
    assert plan.scoring_seconds == pytest.approx(1.5 * 1200 * 2 * 0.0001 + 0.5), "mirrored scoring takes two views"
    train_seconds = 100 - 10 - plan.finish_seconds - plan.scoring_seconds
    assert plan.recipe.batch_size == 512
    assert plan.step_seconds == pytest.approx(0.512)
    assert plan.expected_steps == int(train_seconds / 0.512)
    assert plan.num_steps is None
    assert plan.precision == "fp32"
    assert plan.num_val_images == 200
    assert plan.validate_at == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert plan.lines[0].startswith("CPU, ")
    assert plan.lines[-1].startswith("1m26s of training at about 1000 images/s: 167 steps, 142.5 epochs; ")


def test_a_large_model_has_time_to_be_written(machine: Callable[[float, float], None]) -> None:
    machine(0.001, 0.0001)
    small, large = (["batch_size=32", f"width={width}"] for width in (16, 128))
    for settings, num_parameters in ((small, 0), (large, 26_000_000)):
        plans = [planned(settings=settings, budget=1000, byte_seconds=seconds) for seconds in (0.0, 1e-7)]
        more = plans[1].saving_seconds - plans[0].saving_seconds
        assert more == pytest.approx(2 * 1e-7 * 4 * num_parameters, rel=0.05), "twice what was measured"
        assert plans[1].finish_seconds - plans[0].finish_seconds == pytest.approx(more)


def test_scoring_is_bounded_by_its_share(machine: Callable[[float, float], None]) -> None:
    machine(0.001, 0.1)
    plan = planned(budget=100, scoring=ScoringLoad(5000, 10_000))
    assert plan.scoring_seconds == pytest.approx(7.0)
    assert plan.num_val_images == 0, "the budget allows fewer than 50 images"
    assert plan.validate_at == []
    machine(0.001, 0.002)
    assert planned(budget=1000, scoring=ScoringLoad(5000, 0)).num_val_images == 2000
    assert planned(budget=100, scoring=ScoringLoad(5000, 0)).num_val_images == 250
    assert planned(budget=100, scoring=ScoringLoad(7, 0)).num_val_images == 7


def test_the_batch_is_halved_until_the_budget_buys_enough_steps(machine: Callable[[float, float], None]) -> None:
    machine(0.002, 1e-6)
    plan = planned(budget=20)  # 19.0 s, 9,500 images: 37 steps of 256, 74 of 128
    assert (plan.recipe.batch_size, plan.recipe.max_lr) == (128, 0.25)
    assert plan.expected_steps == 74
    assert plan.lines[-2] == (
        "batch size reduced from 512 to 128 and learning rate from 1 to 0.25: data and budget would allow too few steps"
    )


def test_the_batch_fits_the_data_and_stops_halving_at_32(machine: Callable[[float, float], None]) -> None:
    machine(1e-5, 1e-6)
    assert planned(budget=60, train=bands(100)).recipe.batch_size == 64
    assert planned(budget=60, train=bands(10)).recipe.batch_size == 32
    machine(0.03, 1e-6)
    few = planned(budget=15)
    assert (few.recipe.batch_size, few.expected_steps) == (32, 14)


def test_a_batch_size_set_by_the_user_is_not_changed(machine: Callable[[float, float], None]) -> None:
    machine(0.002, 1e-6)
    plan = planned(settings=[*SMALL, "batch_size=512"], budget=20)
    assert (plan.recipe.batch_size, plan.recipe.max_lr) == (512, 1.0)
    assert plan.expected_steps == 18
    assert planned(settings=[*SMALL, "batch_size=512"], train=bands(100), steps=5).recipe.batch_size == 512


def test_an_odd_batch_cannot_be_halved(machine: Callable[[float, float], None]) -> None:
    machine(0.002, 1e-6)
    with pytest.raises(BudgetError):
        planned(settings=[*SMALL, "batch_size=4095"], budget=20)


def test_a_budget_too_short_is_refused_with_one_that_works(machine: Callable[[float, float], None]) -> None:
    machine(0.1, 1e-6)
    message = refusal(BudgetError, lambda: planned(budget=20, elapsed=5))
    assert message == (
        "budget 20s is too short: reading 'photos/' and planning took 5.0s, and 10 steps take about 32s here; "
        "use at least 56s"
    )
    assert planned(budget=56, elapsed=5).expected_steps >= 10


def test_the_smallest_budget_named_counts_the_scoring_too(machine: Callable[[float, float], None]) -> None:
    machine(0.1, 0.01)
    scoring = ScoringLoad(1000, 10_000)
    message = refusal(BudgetError, lambda: planned(budget=10, elapsed=2, scoring=scoring))
    smallest = float(message.rpartition("use at least ")[2].removesuffix("s"))
    assert planned(budget=smallest, elapsed=2, scoring=scoring).expected_steps >= 10


@pytest.mark.parametrize("recipe", ["auto", "haet2021"])
def test_no_time_left_at_all(recipe: str, machine: Callable[[float, float], None]) -> None:
    machine(0.001, 1e-6)
    message = refusal(BudgetError, lambda: planned(recipe, [], budget=10, elapsed=30))
    assert message.startswith("budget 10s is too short: reading 'photos/' and planning took 30s, and 10 steps take ")


def test_auto_selects_a_larger_model_on_a_faster_machine(machine: Callable[[float, float], None]) -> None:
    machine(1e-6, 1e-6)
    fast = planned("auto", [], budget=60)
    machine(1e-3, 1e-6)
    slow = planned("auto", [], budget=60)
    assert work(fast.recipe) > work(slow.recipe)
    assert fast.recipe.name == "auto"
    assert any("(nearest neighbours right: " in line for line in fast.lines)
    assert len(fast.lines) == 6, "device, scale, batch, augmentation, confidence and budget"
    assert any(f" of width {fast.recipe.width} at 16 px: needs about " in line for line in fast.lines)


def test_settings_override_auto(machine: Callable[[float, float], None]) -> None:
    machine(1e-4, 1e-6)
    plan = planned("auto", ["width=12", "flip=random", "tta=none"], budget=60)
    assert (plan.recipe.width, plan.recipe.flip, plan.recipe.tta) == (12, "random", "none")


@contextmanager
def no_clock(monkeypatch: pytest.MonkeyPatch) -> object:
    def read() -> float:
        raise AssertionError("the clock was read")

    with monkeypatch.context() as patch:
        for module in (speed, benchmark):
            patch.setattr(module, "now", read)
        for module in (benchmark, precision):
            patch.setattr(module, "fastest_seconds", lambda *rest, **more: read())
        yield


class Forbidden(Deadline):
    """A deadline whose clock must not be read."""

    def elapsed(self) -> float:
        raise AssertionError("the clock was read")

    remaining = elapsed  # type: ignore[assignment]


@pytest.mark.parametrize("recipe", ["auto", "haet2021"])
def test_with_steps_no_clock_is_read_and_the_plan_is_repeatable(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Plan:
        deadline = Forbidden(None)
        request = PlanRequest(recipe, (), bands(600), ScoringLoad(60, 0), Hardware(CPU), "photos/")
        return make_plan(request, deadline, 30, WriteSpeed(0.1, lambda: 0.0))

    before = torch.get_rng_state()
    with no_clock(monkeypatch):
        first, second = make(), make()
    assert first == second
    assert (first.num_steps, first.expected_steps, first.step_seconds) == (30, 30, 0.0)
    assert (first.scoring_seconds, first.finish_seconds) == (float("inf"), 0.0)
    assert first.precision == "fp32"
    assert first.num_val_images == 60
    assert torch.equal(torch.get_rng_state(), before)


def test_crops_and_image_sides_out_of_range_are_refused() -> None:
    assert refusal(UsageError, lambda: planned(settings=["crop_padding=8"], steps=5)) == (
        'crop_padding 8 must be smaller than the images\' side of 8 pixels; use settings=["crop_padding=1"]'
    )
    small = ImageDataset(np.zeros((20, 7, 9, 3), np.uint8), np.arange(20) % 2, ("a", "b"), tuple(map(str, range(20))))
    for recipe in ("auto", "haet2021"):
        assert refusal(UsageError, lambda recipe=recipe: planned(recipe, train=small, steps=5)) == (  # type: ignore[misc]
            "images of 9x7 pixels are too small: both sides must be 8 to 4096; "
            'use settings=["image_size=8"] to have them scaled'
        )


@pytest.mark.parametrize("recipe", ["auto", "haet2021"])
def test_fewer_threads_where_they_are_faster(
    recipe: str, machine: Callable[[float, float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(0.001, 0.0001)
    fake_measurements(monkeypatch, lambda self, recipe: 0.001 * torch.get_num_threads() ** 2 * work(recipe))
    monkeypatch.setattr("timebox.planning.selection.LARGE_STEP_SECONDS", inf)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = planned(recipe, budget=100)
        assert made.threads == torch.get_num_threads() == 1
        assert "1 of 2 threads: 4.0x as fast as all of them" in made.lines
        assert made.step_seconds == pytest.approx(0.001 * work(made.recipe) * made.recipe.batch_size)
        assert PlanRecord.of(made).plan(made.recipe).threads == 1
    finally:
        torch.set_num_threads(before)
