"""Planning with a cache of measured throughput: the second plan on a machine measures one network."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from timebox.clock import Deadline
from timebox.planning import selection
from timebox.planning.budget import ScoringLoad
from timebox.planning.plan import Plan
from timebox.planning.planner import make_plan
from timebox.planning.selection import Hardware, PlanRequest
from timebox.planning.throughput.benchmark import NARROW_PROBE, ThroughputBenchmark
from timebox.planning.throughput.cache import ThroughputCache
from timebox.recipes import Recipe, get_recipe
from timebox.runtime import precision
from timebox.runtime.threads import keep_num_threads
from timebox.runtime.write_speed import NO_WRITES
from tiny import CPU, bands

from .test_planner import SMALL, planned, work

DISTURBANCE = 12.0  # the narrow probe seems nearly as slow as the wide one


class Machine:
    """Trains at a speed that a test may change, twice as fast in bf16, and counts the networks measured."""

    def __init__(self) -> None:
        self.slowness = 1.0
        self.faster_in_bf16: Callable[[Recipe], bool] = lambda recipe: True
        self.measured: list[tuple[str, Recipe]] = []

    def seconds(self, benchmark: ThroughputBenchmark, recipe: Recipe) -> float:
        self.measured.append((benchmark.precision, recipe))
        of_precision = (0.5 if self.faster_in_bf16(recipe) else 2.0) if benchmark.precision == "bf16" else 1.0
        return 2e-5 * self.slowness * work(recipe) * of_precision

    def plan(self, recipe: str = "auto", settings: list[str] | None = None, budget: float = 60.0) -> Plan:
        self.measured.clear()
        return planned(recipe, settings or [], budget=budget)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    machine = Machine()
    monkeypatch.setattr(
        ThroughputBenchmark, "fastest_seconds_per_image", lambda self, recipe: machine.seconds(self, recipe)
    )
    monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: 1e-5)
    monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)
    cache = tmp_path / "throughput.json"
    monkeypatch.setattr("timebox.planning.selection.ThroughputCache.of_user", lambda: ThroughputCache(cache))
    return machine


def same(one: Plan, other: Plan) -> bool:
    """Whether two plans train the same network at the same expected speed."""
    return one.recipe == other.recipe and one.step_seconds == pytest.approx(other.step_seconds)


@pytest.mark.parametrize("recipe", ["auto", "haet2021"])
def test_a_second_plan_is_the_first_one_and_measures_one_network(machine: Machine, recipe: str) -> None:
    settings = SMALL if recipe == "haet2021" else []
    first = machine.plan(recipe, settings)
    assert len(machine.measured) >= 2
    second = machine.plan(recipe, settings)
    assert len(machine.measured) == 1
    assert same(first, second)
    assert first.precision == second.precision == "bf16"
    assert second.lines[0].endswith("bf16 (as measured here earlier)")


def test_on_a_machine_that_became_slower_all_is_measured_again(machine: Machine) -> None:
    first = machine.plan()
    machine.slowness = 3.0
    second = machine.plan()
    assert len(machine.measured) >= 4
    assert second.recipe.width <= first.recipe.width
    assert "as measured here earlier" not in second.lines[0]


@pytest.mark.parametrize("slowness", [3.0, 10.0, 30.0, 100.0])
def test_a_probe_that_was_disturbed_is_measured_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, slowness: float
) -> None:
    machine.slowness = slowness
    monkeypatch.setattr("timebox.planning.selection.ThroughputCache.of_user", lambda: ThroughputCache(None))
    undisturbed, seconds, disturbances = machine.plan(), machine.seconds, [DISTURBANCE]

    def disturbed(benchmark: ThroughputBenchmark, recipe: Recipe) -> float:
        is_first = benchmark.precision == "bf16" and recipe == NARROW_PROBE["cpu"] and disturbances
        return seconds(benchmark, recipe) * (disturbances.pop() if is_first else 1.0)

    monkeypatch.setattr(machine, "seconds", disturbed)
    assert same(machine.plan(), undisturbed)
    assert disturbances == []


def test_programs_that_come_while_the_plan_is_made_count(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They slow down all that is measured after the first selection, which would have time for a fraction of its
    epochs."""
    monkeypatch.setattr("timebox.planning.selection.ThroughputCache.of_user", lambda: ThroughputCache(None))
    machine.slowness = 10.0
    free, seconds = machine.plan(), machine.seconds
    machine.slowness = 60.0
    slow = machine.plan()
    assert slow.recipe != free.recipe
    machine.slowness = 10.0
    num_before = len({recipe for _, recipe in machine.measured})

    def with_company(benchmark: ThroughputBenchmark, recipe: Recipe) -> float:
        is_late = len({recipe for _, recipe in machine.measured}) >= num_before
        return seconds(benchmark, recipe) * (6.0 if is_late else 1.0)

    monkeypatch.setattr(machine, "seconds", with_company)
    disturbed = machine.plan()
    assert disturbed.recipe.width <= free.recipe.width
    assert disturbed.expected_steps * disturbed.recipe.batch_size >= 0.5 * slow.expected_steps * slow.recipe.batch_size


def test_speeds_that_contradict_each_other_end_in_a_plan_that_fits() -> None:
    """Small networks are as fast as expected, and large ones far slower: no one correction fits both."""
    small, large = NARROW_PROBE["cpu"], NARROW_PROBE["cpu"].replace(width=64)
    seconds = {small.width: 1.0, large.width: 100.0}

    class Benchmark:
        def training_seconds_per_image(self, recipe: Recipe) -> float:
            return seconds[recipe.width]

        remeasure = training_seconds_per_image

        def network_key(self, recipe: Recipe) -> str:
            return str(recipe.width)

    def select(seconds_per_image: selection.SecondsPerImage) -> tuple[Recipe, list[str]]:
        return (large if seconds_per_image(large) <= 10.0 else small), []

    estimate = {small.width: 1.0, large.width: 5.0}
    recipe, _, seconds_per_image = selection._select_as_measured(
        Benchmark(),  # type: ignore[arg-type]
        select,
        lambda recipe: estimate[recipe.width],
        1.0,
    )
    assert recipe == small
    assert seconds_per_image(recipe) == 1.0
    assert seconds_per_image(large) == 100.0


def test_a_disturbed_measurement_in_the_cache_is_replaced(machine: Machine, tmp_path: Path) -> None:
    undisturbed, cache = machine.plan(), tmp_path / "throughput.json"
    content = json.loads(cache.read_text())
    (measurements,) = content.values()
    in_bf16 = {key: value for key, value in measurements["seconds"].items() if key.startswith("bf16")}
    narrow = min(in_bf16, key=in_bf16.__getitem__)
    measurements["seconds"][narrow] *= DISTURBANCE
    cache.write_text(json.dumps(content))
    assert same(machine.plan(), undisturbed)
    (measurements,) = json.loads(cache.read_text()).values()
    assert measurements["seconds"][narrow] == pytest.approx(in_bf16[narrow])


def test_a_small_change_of_speed_counts_for_all_networks(machine: Machine) -> None:
    first = machine.plan("haet2021", SMALL)
    machine.slowness = 1.2
    second = machine.plan("haet2021", SMALL)
    assert len(machine.measured) == 1
    assert second.step_seconds == pytest.approx(1.2 * first.step_seconds)


def test_a_short_budget_takes_the_precision_that_is_known(machine: Machine) -> None:
    assert machine.plan(budget=8.0).precision == "fp32"
    machine.plan(budget=60.0)
    short = machine.plan(budget=8.0)
    assert machine.measured[0] == ("fp32", NARROW_PROBE["cpu"]), "the one that is measured again"
    assert {name for name, _ in machine.measured[1:]} <= {"bf16"}
    assert short.precision == "bf16"
    assert short.lines[0].endswith("bf16 (as measured here earlier)")


def test_a_precision_that_is_asked_for_is_not_remembered_as_the_fastest(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned("haet2021", SMALL, budget=60.0, name="fp32")
    assert machine.plan("haet2021", SMALL).precision == "bf16"


def test_the_precision_of_one_recipe_is_not_that_of_another(machine: Machine) -> None:
    slow_in_bf16 = [*SMALL, "celu_alpha=0.5"]
    machine.faster_in_bf16 = lambda recipe: recipe.celu_alpha != 0.5
    assert machine.plan("haet2021", slow_in_bf16).precision == "fp32"
    assert machine.plan("haet2021", SMALL).precision == "bf16"
    assert machine.plan("haet2021", slow_in_bf16).precision == "fp32"
    assert machine.plan("haet2021", SMALL).precision == "bf16"


def test_without_the_cache_all_is_measured(machine: Machine) -> None:
    machine.plan()
    request = PlanRequest("auto", (), bands(600), ScoringLoad(0, 0), Hardware(CPU), "photos/", uses_cache=False)
    machine.measured.clear()
    plan = make_plan(request, Deadline(60.0), None, NO_WRITES)
    assert len(machine.measured) >= 4
    assert "as measured here earlier" not in plan.lines[0]


def test_a_number_of_steps_knows_no_cache(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> ThroughputCache:
        raise AssertionError("the plan would depend on earlier runs")

    monkeypatch.setattr("timebox.planning.selection.ThroughputCache.of_user", fail)
    planned("auto", [], steps=20)
    assert machine.measured == []


class TimedBenchmark:
    """Measurements of ``seconds`` an image that take a second, in which the process gets ``share`` of its threads."""

    device = CPU

    def __init__(self, seconds: float, share: float) -> None:
        self.seconds, self.share = seconds, share
        self.moment = self.used = 0.0
        self.threads: list[int] = []

    def is_cached(self, recipe: Recipe) -> bool:
        return False

    def cached_or_remeasured(self, recipe: Recipe) -> float:
        self.threads.append(torch.get_num_threads())
        self.moment += 1.0
        self.used += self.share * torch.get_num_threads()
        return self.seconds


@pytest.mark.parametrize(
    ("seconds", "share", "threads"),
    [(1e-3, 0.99, [2]), (1e-4, 0.99, [2, 1]), (1e-3, 0.6, [2, 1])],
    ids=["long steps on a free machine", "short steps", "beside other programs"],
)
def test_fewer_threads_are_measured_where_they_may_be_faster(
    seconds: float, share: float, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    benchmark = TimedBenchmark(seconds, share)
    monkeypatch.setattr(selection, "now", lambda: benchmark.moment)
    monkeypatch.setattr(time, "process_time", lambda: benchmark.used)
    with keep_num_threads():
        torch.set_num_threads(2)
        assert selection._tune_threads(benchmark, get_recipe("haet2021").replace(batch_size=128)) == []  # type: ignore[arg-type]
    assert benchmark.threads == threads
