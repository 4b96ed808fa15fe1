"""The speed of networks, measured before any of them is trained."""

from collections.abc import Callable

import pytest
import torch

from timebox.planning.throughput import benchmark
from timebox.planning.throughput.benchmark import PROBE_RECIPE, ThroughputBenchmark, seconds_per_image
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.training.state import TrainingState
from tiny import CPU, bands


def test_a_real_measurement_is_sane() -> None:
    measuring = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2)
    recipe = get_recipe("haet2021").replace(width=4)
    assert 0 < measuring.scoring_seconds_per_image(recipe) < 1
    assert 0 < measuring.training_seconds_per_image(recipe) < 1


def test_what_a_step_takes_anyway_is_shared_by_the_images_of_the_batch() -> None:
    def step(size: int) -> tuple[int, float]:
        return size, 0.02 + 0.001 * size

    sizes = [step(7), step(28), step(112), step(128)]
    for measured in (sizes, sizes[:2]):
        assert seconds_per_image(measured, 500, 0.0) == pytest.approx(0.02 / 500 + 0.001)
    assert seconds_per_image([step(7), step(28)], 28, 0.0) == pytest.approx(0.02 / 28 + 0.001)
    assert seconds_per_image([step(28)], 28, 20.0) == pytest.approx(0.02 / 28 + 0.001)
    # A small batch that was disturbed, or is hardly faster, leads to no wild guess.
    assert seconds_per_image([(7, 0.1), step(28)], 500, 0.0) == pytest.approx((0.5 + 0.5 * 28 / 500) * 0.048 / 28)
    assert seconds_per_image([(7, 1e-6), step(28)], 500, 0.0) == pytest.approx(0.048 / 28)


def test_a_single_reading_is_divided_by_the_operations() -> None:
    assert seconds_per_image([(7, 0.16)], 128, 9.0) == pytest.approx(0.01 * (1 + 9 / 128))
    assert seconds_per_image([(7, 0.07)], 128, 0.0) == pytest.approx(0.01)
    assert seconds_per_image([(7, 0.16)], 7, 9.0) == pytest.approx(0.16 / 7), "nothing to extrapolate"


def test_a_batch_that_is_hardly_too_large_is_measured_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of width 16: 81 images come to the work that measuring begins with."""
    measuring, measured = ThroughputBenchmark(bands(32, side=32), CPU, "fp32", 9.0), []
    make_images = measuring._images
    monkeypatch.setattr(measuring, "_images", lambda num, size: measured.append(num) or make_images(num, size))
    monkeypatch.setattr(benchmark, "fastest_seconds", lambda *given, **more: 0.1)
    for batch_size, sizes in ((128, [128]), (160, [128]), (64, [64])):
        measuring.fastest_seconds_per_image(PROBE_RECIPE.replace(width=16, batch_size=batch_size))
        assert measured == sizes
        measured.clear()


@pytest.mark.parametrize(
    ("limit", "sizes"), [(0.2, [7]), (0.9, [7, 14]), (1.2, [7, 28]), (3.0, [7, 28, 56]), (9.0, [7, 28, 112, 128])]
)
def test_the_batch_grows_as_far_as_the_limit_allows(
    limit: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that takes 0.01 s for an image, and as long for the operations of an image in an update."""
    measuring, clock = ThroughputBenchmark(bands(32, side=32), CPU, "fp32", limit), [0.0]
    measured: list[int] = []
    make_images = measuring._images
    state = TrainingState(measuring._build(PROBE_RECIPE), PROBE_RECIPE, Precision("fp32", CPU))
    update = state.optimizer.flops_per_step / measuring.flops_per_image(PROBE_RECIPE)

    def images(num_images: int, size: tuple[int, int]) -> torch.Tensor:
        measured.append(num_images)
        return make_images(num_images, size)

    def fastest_seconds(*given: object, **more: object) -> float:
        seconds = 0.01 * (measured[-1] + update)
        clock[0] += 2 * seconds
        return seconds

    monkeypatch.setattr(measuring, "_images", images)
    monkeypatch.setattr(benchmark, "fastest_seconds", fastest_seconds)
    monkeypatch.setattr(benchmark, "now", lambda: clock[0])
    found = measuring.fastest_seconds_per_image(PROBE_RECIPE)
    assert measured == sizes
    assert clock[0] <= max(limit, 0.02 * (7 + update))
    assert found == pytest.approx(0.01 * (1 + update / 128))


def test_the_least_that_was_measured_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [3.0, 2.0, 4.0]
    monkeypatch.setattr(ThroughputBenchmark, "fastest_seconds_per_image", lambda self, recipe: readings.pop(0))
    measuring, recipe = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2), get_recipe("haet2021")
    found = [measuring.training_seconds_per_image(recipe), *(measuring.remeasure(recipe) for _ in range(2))]
    assert found == pytest.approx([3.3, 2.2, 2.2])
    assert measuring.training_seconds_per_image(recipe) == pytest.approx(2.2)
    assert readings == []


def test_seconds_follow_the_work_on_a_line_through_two_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2)
    narrow, wide = (PROBE_RECIPE.replace(width=width) for width in (4, 16))

    def line(narrow_seconds: float, wide_seconds: float) -> Callable[[Recipe], float]:
        for name in ("training_seconds_per_image", "remeasure"):
            monkeypatch.setattr(
                ThroughputBenchmark, name, lambda self, recipe: narrow_seconds if recipe == narrow else wide_seconds
            )
        return measuring.seconds_by_work(narrow, wide)

    seconds = line(0.002, 0.006)
    assert [seconds(narrow), seconds(wide)] == pytest.approx([0.002, 0.006])
    between, beyond = seconds(narrow.replace(width=8)), seconds(narrow.replace(width=32))
    assert 0.002 < between < 0.006 < beyond
    assert seconds(narrow.replace(width=8, ensemble_size=3)) == pytest.approx(3 * between)
    # Whatever was misread, more work never takes less time, nor any time below nothing.
    for narrow_seconds, wide_seconds in ((0.006, 0.006), (0.01, 0.006), (1e-9, 0.006)):
        seconds = line(narrow_seconds, wide_seconds)
        found = [seconds(narrow.replace(width=width)) for width in (4, 8, 16, 32)]
        assert found == sorted(found)
        assert found[0] > 0
        assert found[2] == pytest.approx(0.006)


def test_an_ensemble_takes_as_long_as_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ThroughputBenchmark,
        "fastest_seconds_per_image",
        lambda self, recipe: 1.0 if recipe.ensemble_size == 1 else 100.0,
    )
    measuring, recipe = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2), PROBE_RECIPE.replace(ensemble_size=3)
    assert measuring.training_seconds_per_image(recipe) == pytest.approx(3.3)
    assert measuring.training_seconds_per_image(recipe) == pytest.approx(3.3)


def test_wider_networks_are_more_work() -> None:
    measuring = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2)
    work = [measuring.flops_per_image(PROBE_RECIPE.replace(width=width)) for width in (4, 8, 16)]
    assert work[0] < work[1] < work[2]
    assert 2.5 < work[2] / work[1] < 4


def test_work_is_counted_once_for_a_network_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = ThroughputBenchmark._build

    def counting(self: ThroughputBenchmark, recipe: Recipe) -> object:
        built.append(recipe.ensemble_size)
        return build(self, recipe)

    monkeypatch.setattr(ThroughputBenchmark, "_build", counting)
    measuring, recipe = ThroughputBenchmark(bands(32), CPU, "fp32", 0.2), PROBE_RECIPE.replace(width=4)
    one = measuring.flops_per_image(recipe)
    assert [measuring.flops_per_image(recipe.replace(ensemble_size=members)) for members in (1, 3)] == [one, 3 * one]
    assert built == [1]
