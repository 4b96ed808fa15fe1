"""The precision that the planner selects: fastest on the probe network, confirmed on the selected network."""

import pytest

from timebox.planning.throughput.benchmark import PROBE_RECIPE, ThroughputBenchmark
from timebox.recipes import Recipe
from timebox.runtime import precision

from .test_planner import fake_measurements, planned


def test_bf16_must_be_faster_on_the_network_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)
    monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: 1e-5)
    for bf16_seconds, chosen in ((0.5e-4, "bf16"), (1e-4, "fp32"), (3e-4, "fp32")):
        seconds = {"fp32": 1e-4, "bf16": bf16_seconds}
        fake_measurements(monkeypatch, lambda self, recipe, of=seconds: of[self.precision])
        plan = planned(budget=60)
        assert plan.precision == chosen


def test_auto_returns_to_fp32_if_the_selected_network_is_slower_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(measuring: ThroughputBenchmark, recipe: Recipe) -> float:
        if measuring.precision == "fp32":
            return 1e-4
        return 0.5e-4 if recipe == PROBE_RECIPE else 2e-4

    monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)
    monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: 1e-5)
    monkeypatch.setattr(ThroughputBenchmark, "seconds_by_work", lambda self, narrow, wide: lambda recipe: 1e-4)
    fake_measurements(monkeypatch, seconds)
    plan = planned("auto", budget=60)
    assert plan.precision == "fp32"
    assert "fp32 after all: bf16 runs this network at 0.5x its speed" in plan.lines


def test_a_network_as_fast_in_either_precision_is_not_measured_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[str] = []

    def seconds(measuring: ThroughputBenchmark, recipe: Recipe) -> float:
        if recipe == PROBE_RECIPE:
            return 1e-4 if measuring.precision == "fp32" else 0.5e-4
        readings.append(measuring.precision)
        return 2e-4

    monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)
    monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: 1e-5)
    monkeypatch.setattr(ThroughputBenchmark, "seconds_by_work", lambda self, narrow, wide: lambda recipe: 2.2e-4)
    monkeypatch.setattr(ThroughputBenchmark, "fastest_seconds_per_image", seconds)
    assert planned("auto", budget=60).precision == "bf16"
    assert readings.count("fp32") == 1


def test_a_single_disturbed_measurement_does_not_return_auto_to_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    times_measured = 0

    def seconds(measuring: ThroughputBenchmark, recipe: Recipe) -> float:
        nonlocal times_measured
        if measuring.precision == "fp32":
            times_measured += recipe != PROBE_RECIPE
            return 1e-4
        return 0.5e-4 if times_measured == 3 or recipe == PROBE_RECIPE else 2e-4

    monkeypatch.setattr(precision, "_probe_seconds", lambda name, device: 1.0)
    monkeypatch.setattr(ThroughputBenchmark, "scoring_seconds_per_image", lambda self, recipe: 1e-5)
    monkeypatch.setattr(ThroughputBenchmark, "seconds_by_work", lambda self, narrow, wide: lambda recipe: 2.2e-4)
    monkeypatch.setattr(ThroughputBenchmark, "fastest_seconds_per_image", seconds)
    plan = planned("auto", budget=60)
    assert times_measured == 3
    assert plan.precision == "bf16"
