"""Time to accuracy: what each phase sees and times, and that no trial remembers another."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from timebox.benchmarking import speedrun as module
from timebox.benchmarking.speedrun import Speedrun, Trial, run_trial, steps_for_epochs, summarize, time_to_accuracy
from timebox.data import ImageDataset
from timebox.optim.loss import Loss
from timebox.pipelines import train
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.training.graphed_step import GraphedStepRunner
from timebox.training.state import TrainingState

from tiny import CPU, bands, tiny_recipe  # isort: skip
from fake_recorder import FakeGraphRecorder  # isort: skip

NUM_STEPS = 6


def muon_recipe(**changes: int | float | str) -> Recipe:
    return get_recipe("airbench94").replace(**{"width": 4, "batch_size": 16, "max_lr": 10.0, **changes})


RECIPES = [tiny_recipe(), muon_recipe()]


def run_of(recipe: Recipe, precision: str = "fp32", train: ImageDataset | None = None) -> Speedrun:
    return Speedrun(recipe, train or bands(100), NUM_STEPS, Precision(precision, CPU))


def weights_after(speedrun: Speedrun, seed: int) -> dict[str, bytes]:
    speedrun.prepare(seed)
    speedrun.train()
    return contents(speedrun)


def contents(speedrun: Speedrun) -> dict[str, bytes]:
    """Everything that a training changes: weights, momentum, average."""
    return {name: tensor.numpy().tobytes() for name, tensor in speedrun._state.snapshot().tensors.items()}


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraphRecorder]:
    """Steps are recorded, as on a GPU."""
    made: list[FakeGraphRecorder] = []

    def recorded(state: TrainingState, loss_fn: Loss, notify: object) -> GraphedStepRunner:
        made.append(FakeGraphRecorder())
        return GraphedStepRunner(state, loss_fn, made[-1], lambda text: pytest.fail(text))

    monkeypatch.setattr(module, "build_step_runner", recorded)
    return made


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_trial_is_the_same_whatever_came_before_it(recipe: Recipe, precision: str) -> None:
    first = run_of(recipe, precision)
    first.build()
    expected = {seed: weights_after(first, seed) for seed in (5, 6, 7)}
    assert len({contents["model.head.weight"] for contents in expected.values()}) == 3
    second = run_of(recipe, precision)
    second.build()
    assert {seed: weights_after(second, seed) for seed in (7, 5, 6)} == expected
    second.prepare(5)
    beginning = contents(second)
    assert set(beginning["momentum.head.weight"]) == {0}
    assert weights_after(second, 5) == expected[5], "also after one that was prepared and never trained"


@pytest.mark.integration
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recorded_trial_is_the_same_too(recipe: Recipe, recorders: list[FakeGraphRecorder]) -> None:
    first, second = run_of(recipe), run_of(recipe)
    for speedrun in (first, second):
        speedrun.build()
    recorded = [recorder.num_recorded for recorder in recorders]
    assert recorded == [2, 2] if recipe.model == "airbench" else [1, 1]
    expected = {seed: weights_after(first, seed) for seed in (5, 6)}
    assert {seed: weights_after(second, seed) for seed in (6, 5)} == expected
    assert [recorder.num_recorded for recorder in recorders] == recorded, "nothing is recorded in a trial"
    assert first.facts()["recorded"] is True


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("haet2021", {"ghost_size": 8, "cutout_size": 3}),
        ("airbench94", {"whitening": True}),
        ("airbench94", {"whitening": False}),
    ],
)
def test_a_trial_is_what_timebox_train_trains(tmp_path: object, recipe: str, changes: dict[str, object]) -> None:
    """Weights, order, augmentation, statistics, whitening: all of it, to the byte."""
    data = bands(100)
    path = f"{tmp_path}/bands.npz"
    np.savez(path, images=data.images, labels=data.labels)
    settings = {"width": 8, "batch_size": 32, "image_size": 8, **changes}
    run = train(
        path,
        steps=NUM_STEPS,
        recipe=recipe,
        settings=[f"{name}={str(value).lower()}" for name, value in settings.items()],
        val="none",
        test="none",
        seed=3,
        device="cpu",
        precision="fp32",
        out=f"{tmp_path}/run",
    )
    speedrun = Speedrun(run.recipe, data, NUM_STEPS, Precision("fp32", CPU))
    speedrun.build()
    speedrun.prepare(3)
    speedrun.train()
    ours = speedrun.model.state_dict()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(ours[name], tensor), name


def test_building_sees_no_image() -> None:
    speedrun = run_of(tiny_recipe())
    del speedrun._images
    speedrun.build()
    with pytest.raises(AttributeError, match="_images"):
        speedrun.prepare(0)


def test_building_on_other_images_of_that_shape_changes_nothing() -> None:
    one, other = bands(100), bands(100, seed=9)
    assert not np.array_equal(one.images, other.images)
    built = []
    for dataset in (one, other):
        speedrun = run_of(tiny_recipe(), train=dataset)
        speedrun.build()
        built.append(contents(speedrun))
    assert built[0] == built[1]


def test_no_generator_is_touched() -> None:
    before = torch.get_rng_state()
    speedrun = run_of(tiny_recipe())
    speedrun.build()
    run_trial("tiny", speedrun, bands(50, seed=1), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_phase_waits_for_the_device_before_each_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    ticks = count()

    def read() -> float:
        happened.append("clock")
        return float(next(ticks))

    speedrun = run_of(tiny_recipe())
    monkeypatch.setattr(module, "synchronize", lambda device: happened.append(f"wait for {device}"))
    monkeypatch.setattr(module, "now", read)
    assert [speedrun.build(), speedrun.prepare(0), speedrun.train()] == [1.0, 1.0, 1.0]
    assert happened == ["wait for cpu", "clock"] * 6
    speedrun.evaluate(bands(20))
    assert len(happened) == 12, "scoring is not timed"


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 7), (0.5, 4), (2.24, 14), (1.12, 7)])
def test_epochs_are_rounded_up_to_steps(epochs: float, steps: int) -> None:
    assert steps_for_epochs(epochs, 100, 16) == steps
    speedrun = Speedrun(tiny_recipe(), bands(100), steps, Precision("fp32", CPU))
    assert speedrun.epochs == pytest.approx(steps * 16 / 100)


def test_it_learns_and_is_scored_on_all_images() -> None:
    speedrun = Speedrun(tiny_recipe(), bands(200), steps_for_epochs(8, 200, 16), Precision("fp32", CPU))
    speedrun.build()
    test = bands(150, seed=1)
    trial = run_trial("tiny", speedrun, test, seed=0)
    assert trial.accuracy > 0.8
    assert round(trial.accuracy * 150, 6) % 1 == 0
    assert trial.tta == "mirror"
    assert trial.images_per_second == pytest.approx(100 * 16 / trial.train_seconds, rel=1e-3)
    assert 0 <= speedrun.evaluate(test, tta="none") <= 1


def test_contestants_take_turns_and_every_line_tells_all() -> None:
    contestants = {"a": run_of(tiny_recipe()), "b": run_of(muon_recipe()), "c": run_of(tiny_recipe(max_lr=0.01))}
    for speedrun in contestants.values():
        speedrun.build()
    log: list[Mapping[str, object]] = []
    enough = iter([False, False, True])
    found = time_to_accuracy(
        contestants,
        bands(40, seed=1),
        seeds=range(10, 20),
        log=log.append,
        should_stop=lambda: next(enough),
    )
    assert "".join(str(line["name"]) for line in log) == "abcbcacab"
    assert [line["seed"] for line in log] == [10] * 3 + [11] * 3 + [12] * 3
    assert [line["n"] for line in log] == [1] * 3 + [2] * 3 + [3] * 3
    assert {name: len(trials) for name, trials in found.items()} == {"a": 3, "b": 3, "c": 3}
    assert [Trial.of(line) for line in log if line["name"] == "b"] == found["b"]
    for line in log:
        json.dumps(line, allow_nan=False)
        assert line["recipe"] == contestants[str(line["name"])].recipe.as_dict()
        assert (line["device"], line["precision"]) == ("cpu", "fp32")
        assert {"torch", "timebox", "numpy", "python"} == set(line["versions"])  # type: ignore[call-overload]
    assert {"prepare_seconds", "train_seconds", "accuracy", "tta", "steps", "epochs"} <= set(log[0])


TRIAL = Trial("a", 0, 0.5, 2.0, 0.94, "none", 200, 8.0, 1000.0)


def test_a_summary() -> None:
    trials = [replace(TRIAL, accuracy=value, train_seconds=2 + i) for i, value in enumerate((0.941, 0.939, 0.943))]
    summary = summarize("a", trials, target=0.94)
    assert (summary.accuracy.n, summary.reached) == (3, True)
    assert summary.accuracy.mean == pytest.approx(0.941)
    assert summary.accuracy.sd == pytest.approx(0.002)
    reach = 4.302653 * 0.002 / 3**0.5
    assert summary.accuracy.interval == pytest.approx((0.941 - reach, 0.941 + reach))
    assert (summary.seconds.mean, summary.seconds.sd) == pytest.approx((3.5, 1.0))
    assert summary.p == pytest.approx(0.238884, abs=1e-6)
    assert not summarize("a", trials, target=0.942).reached


def test_one_trial_has_no_spread() -> None:
    summary = summarize("a", [TRIAL], target=0.95)
    assert (summary.accuracy.sd, summary.accuracy.interval, summary.seconds.sd, summary.p) == (None,) * 4
    assert not summary.reached
