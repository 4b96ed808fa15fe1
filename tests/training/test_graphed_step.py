"""Recorded steps are the eager ones, whatever changes from step to step, and recording never makes a training worse."""

from collections.abc import Callable
from math import nan

import pytest
import torch
from torch import Tensor

from fake_recorder import FakeGraphRecorder
from timebox.builders import build_augmentation, build_model, build_resizing
from timebox.data.device.loader import Batch, DeviceLoader
from timebox.optim import Optimizer, Rates, WeightAverage
from timebox.optim.loss import Loss
from timebox.recipe import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.training import graphed_step as graphs
from timebox.training.graphed_step import GraphedSteps, build_steps, steps_agree
from timebox.training.pacer import StepPacer
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import PacedSchedule, StepPlan, lr_and_momentum_at
from timebox.training.state import TrainingState
from timebox.training.step import EagerSteps, Steps
from tiny import CPU, bands, tiny_recipe, tiny_training

NUM_STEPS = 12
BATCH = 16
STEP, TAKE_IN = Optimizer.step, WeightAverage.update_with_weight


def muon_recipe(**changes: int | float | str) -> Recipe:
    """The speed record's, on a network small enough for a test; its whitening bias freezes at 3/8."""
    return get_recipe("airbench94").replace(**{"width": 4, "batch_size": BATCH, "max_lr": 10.0, **changes})


RECIPES = [
    tiny_recipe(),
    tiny_recipe(averaging_span=0.0),
    muon_recipe(),
    muon_recipe(averaging_span=0.1, whitening_bias_until=0.0),
    muon_recipe(ensemble_size=2),
    muon_recipe(start_size=0.75, full_size_at=0.6, whitening_bias_until=0.45),
]


def state_of(recipe: Recipe, precision: str = "fp32") -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision(precision, CPU))


def loader_of(recipe: Recipe) -> DeviceLoader:
    half = torch.full((3,), 0.5)
    images = bands(100, side=8 if recipe.start_size == 1 else 16)
    augmentation, resizing = build_augmentation(recipe), build_resizing(recipe)
    return DeviceLoader(images, recipe.batch_size, half, half / 2, augmentation, 0, CPU, resizing, recipe.ensemble_size)


def take(
    steps: Steps, state: TrainingState, recipe: Recipe, first: int, last: int, micro_batch: int = BATCH
) -> list[float]:
    """Steps ``first`` to ``last`` of twelve, each with its own rates, progress and images; their losses."""
    loader, losses = loader_of(recipe), []
    for number in range(first, last + 1):
        # Uneven advances, as the clock's: the averaging weight changes too.
        progress = (number / NUM_STEPS) ** 1.3
        lr, momentum = lr_and_momentum_at(recipe, progress)
        losses.append(steps(loader.batch(state.step, state.progress), StepPlan(progress, lr, momentum, micro_batch)))
    return [loss.item() for loss in losses]


def contents(state: TrainingState) -> dict[str, Tensor]:
    return state.snapshot().tensors


def graphed(state: TrainingState, recorder: FakeGraphRecorder, told: list[str] | None = None) -> GraphedSteps:
    return GraphedSteps(state, Loss(0.1), recorder, [].append if told is None else told.append)


def assert_close(got: TrainingState, expected: TrainingState, tolerance: float) -> None:
    """Each tensor, within a share of how far it has moved since the beginning of the training."""
    for name, tensor in contents(expected).items():
        if not tensor.is_floating_point():
            assert torch.equal(got.tensors()[name], tensor), name
            continue
        apart = (got.tensors()[name] - tensor).norm().item()
        assert apart <= tolerance * tensor.norm().item() + 1e-6, (name, apart, tensor.norm().item())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name} {recipe.averaging_span}")
@pytest.mark.parametrize("micro_batch", [pytest.param(8, marks=pytest.mark.integration), BATCH])
def test_replays_are_eager_steps(recipe: Recipe, micro_batch: int) -> None:
    """All in a row, at rates so low that rounding does not grow from step to step."""
    recipe = recipe.replace(max_lr=recipe.max_lr / 100, filter_lr=recipe.filter_lr / 100)
    eager, other = state_of(recipe), state_of(recipe)
    expected = take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS, micro_batch)
    losses = take(graphed(other, FakeGraphRecorder()), other, recipe, 1, NUM_STEPS, micro_batch)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_close(other, eager, 1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name} {recipe.averaging_span}")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.integration)])
@pytest.mark.parametrize("micro_batch", [pytest.param(8, marks=pytest.mark.integration), BATCH])
def test_each_replay_is_the_eager_step_from_where_it_stands(recipe: Recipe, precision: str, micro_batch: int) -> None:
    """Both go on from one state after each step. The rates that lie on the device round the last digit otherwise, and
    in bf16 a last digit grows: moving the first weights by 1e-7 alone leads twelve eager steps as far away as they go.
    """
    eager, other = state_of(recipe, precision), state_of(recipe, precision)
    recorder, told = FakeGraphRecorder(), []
    plain, steps = EagerSteps(eager, Loss(0.1)), graphed(other, recorder, told)
    for number in range(1, NUM_STEPS + 1):
        expected = take(plain, eager, recipe, number, number, micro_batch)
        assert take(steps, other, recipe, number, number, micro_batch) == expected
        assert_close(other, eager, 2e-6)
        eager.restore(other.snapshot())
    assert (other.step, other.progress) == (NUM_STEPS, 1.0)
    sizes = 3 if recipe.start_size < 1 else 1
    variants = sizes + (1 if recipe.whitening_bias_until else 0)
    assert recorder.num_recorded == variants
    assert recorder.num_replayed == NUM_STEPS + variants, "each was compared once, and every step was replayed"
    assert told == []


def python_numbers(optimizer: Optimizer, rates: Rates | None = None) -> None:
    STEP(optimizer)


def a_constant_share(average: WeightAverage, share: float | Tensor) -> None:
    TAKE_IN(average, 0.5)


def the_first_batch(steps: GraphedSteps, batch: Batch, average_share: float) -> Batch:
    steps._numbers.fill(steps._state.optimizer.rates, average_share)
    return batch


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Optimizer, "step", python_numbers),
        (WeightAverage, "update_with_weight", a_constant_share),
        (GraphedSteps, "_load", the_first_batch),
    ],
)
def test_what_is_baked_in_shows_in_the_comparison_above(
    owner: object, name: str, wrong: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in has teeth: a replay that ignores a changed number, or a new batch, is another step."""
    recipe = tiny_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS)
    monkeypatch.setattr(owner, name, wrong)
    steps = graphed(other, FakeGraphRecorder())
    take(steps, other, recipe, 1, NUM_STEPS)
    assert steps.num_recorded == 1
    with pytest.raises(AssertionError):
        assert_close(other, eager, 1e-2)


@pytest.mark.parametrize(
    ("recipe", "variants"),
    [
        (tiny_recipe(), 1),
        (muon_recipe(), 2),
        # Sides of 8, 10, 12, 14 and 16 pixels, the last from 0.6 on; at 14 the whitening's bias freezes.
        (muon_recipe(start_size=0.5, full_size_at=0.6, whitening_bias_until=0.5), 6),
    ],
)
def test_preparing_leaves_the_training_where_it_stands(recipe: Recipe, variants: int) -> None:
    state, recorder = state_of(recipe), FakeGraphRecorder()
    steps = graphed(state, recorder)
    take(EagerSteps(state, Loss(0.1)), state, recipe, 1, 1)
    before, random = contents(state), torch.get_rng_state()
    steps.prepare(loader_of(recipe), BATCH)
    assert recorder.num_recorded == variants
    assert recorder.num_recorded == recorder.num_aside == recorder.num_replayed
    assert state.step == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in contents(state).items())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    take(steps, state, recipe, 2, NUM_STEPS)
    assert recorder.num_recorded == variants, "nothing is recorded while time counts"


def test_what_cannot_be_recorded_is_taken_eagerly_and_told_once() -> None:
    recipe = muon_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    expected = take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS)
    told: list[str] = []
    recorder = FakeGraphRecorder(
        fail=RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    )
    steps = graphed(other, recorder, told)
    assert take(steps, other, recipe, 1, NUM_STEPS) == expected
    assert all(torch.equal(tensor, contents(eager)[name]) for name, tensor in contents(other).items())
    assert told == ["steps are not recorded as a CUDA graph: operation not permitted when stream is capturing"]
    assert (steps.num_recorded, recorder.num_recorded) == (0, 1), "not tried again for the other variant"


def test_reading_a_number_back_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: what would wait for the device in each step is found out."""

    def reads(optimizer: Optimizer, rates: Rates | None = None) -> None:
        STEP(optimizer, rates and Rates([float(lr) for lr in rates.lr], rates.momentum))

    monkeypatch.setattr(Optimizer, "step", reads)
    recipe, told = tiny_recipe(), []
    state = state_of(recipe)
    take(graphed(state, FakeGraphRecorder(), told), state, recipe, 1, 2)
    assert [text.partition(":")[0] for text in told] == ["steps are not recorded as a CUDA graph"]


def test_a_replay_that_differs_is_dropped() -> None:
    recipe = tiny_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    expected = take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, 4)
    told: list[str] = []
    steps = graphed(other, FakeGraphRecorder(spoil=0.2), told)
    assert take(steps, other, recipe, 1, 4) == expected
    assert told == ["steps are not recorded as a CUDA graph: a replayed one differs from the same step taken anew"]


def test_an_error_that_is_none_of_recording_is_passed_on() -> None:
    recipe = tiny_recipe()
    state = state_of(recipe)
    with pytest.raises(KeyboardInterrupt):
        take(graphed(state, FakeGraphRecorder(fail=KeyboardInterrupt())), state, recipe, 1, 1)


def test_smaller_parts_are_recorded_anew_and_the_larger_ones_forgotten() -> None:
    recipe, recorder = tiny_recipe(), FakeGraphRecorder()
    state = state_of(recipe)
    steps = graphed(state, recorder)
    take(steps, state, recipe, 1, 2)
    take(steps, state, recipe, 3, 4, micro_batch=8)
    assert (recorder.num_recorded, steps.num_recorded) == (2, 1)


def test_going_back_keeps_every_address() -> None:
    """After a rollback the same recording goes on, from the older weights."""
    recipe, recorder = tiny_recipe(), FakeGraphRecorder()
    eager, other = state_of(recipe), state_of(recipe)
    take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, 6)
    steps = graphed(other, recorder)
    schedule = PacedSchedule(StepPacer(NUM_STEPS), recipe, BATCH)
    take(steps, other, recipe, 1, 3)
    guard = RollbackGuard(other, schedule, BATCH, recipe.ghost_size, 3, [].append)
    addresses = {name: tensor.data_ptr() for name, tensor in other.tensors().items()}
    take(steps, other, recipe, 4, 6)
    other.restore(guard.latest)
    take(steps, other, recipe, 4, 6)
    assert {name: tensor.data_ptr() for name, tensor in other.tensors().items()} == addresses
    assert recorder.num_recorded == 1
    assert_close(other, eager, 1e-3)


def test_a_checkpoint_brings_recorded_steps_to_another_state() -> None:
    recipe = muon_recipe()
    eager, first, second = (state_of(recipe) for _ in range(3))
    take(EagerSteps(eager, Loss(0.1)), eager, recipe, 1, 8)
    take(graphed(first, FakeGraphRecorder()), first, recipe, 1, 4)
    steps = graphed(second, FakeGraphRecorder())
    steps.prepare(loader_of(recipe), BATCH)
    second.restore(first.snapshot())
    take(steps, second, recipe, 5, 8)
    assert_close(second, eager, 1e-3)


def test_the_loop_trains_alike_with_them() -> None:
    """At a rate so low that rounding does not grow from step to step."""
    recipe = tiny_recipe(max_lr=5e-4)

    def recorded(state: TrainingState, loss_fn: Loss) -> Steps:
        return GraphedSteps(state, loss_fn, FakeGraphRecorder(), [].append)

    plain, log = tiny_training(20, recipe=recipe)
    trained, other = tiny_training(20, recipe=recipe, make_steps=recorded)
    assert [entry["loss"] for entry in other] == pytest.approx([entry["loss"] for entry in log], rel=1e-5)
    assert [{**entry, "loss": 0} for entry in other] == [{**entry, "loss": 0} for entry in log]
    for got, expected in zip(trained.model.parameters(), plain.model.parameters(), strict=True):
        assert (got - expected).norm() <= 1e-4 * expected.norm() + 1e-6


@pytest.mark.parametrize(
    ("device", "precision", "recorded"),
    [("cpu", "fp32", False), ("cuda", "fp32", True), ("cuda", "bf16", True), ("cuda", "fp16", False)],
)
def test_only_a_gpu_records_and_not_in_fp16(
    device: str, precision: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "CudaGraphRecorder", lambda device: FakeGraphRecorder())
    monkeypatch.setattr(graphs, "StepNumbers", lambda num_groups, device: None)
    state = state_of(tiny_recipe())
    state.precision.device, state.precision.name = torch.device(device), precision
    assert isinstance(build_steps(state, Loss(0.1), [].append), GraphedSteps if recorded else EagerSteps)


def states(**changes: Tensor) -> dict[str, Tensor]:
    return {"model.a": torch.ones(4), "model.b": torch.zeros(2), "model.count": torch.tensor(3), **changes}


@pytest.mark.parametrize(
    ("got", "alike"),
    [
        (states(), True),
        (states(**{"model.a": torch.full((4,), 1.001)}), True),
        (states(**{"model.a": torch.full((4,), 1.1)}), False),
        (states(**{"model.a": torch.full((4,), nan)}), False),
        (states(**{"model.count": torch.tensor(4)}), False),
    ],
)
def test_agreement_is_judged_against_how_far_a_step_goes(got: dict[str, Tensor], alike: bool) -> None:
    before = states(**{"model.a": torch.zeros(4), "model.count": torch.tensor(2)})
    assert steps_agree(before, states(), got) is alike
