"""Graphed steps equal eager steps, whatever changes from step to step; failed recordings fall back to eager steps."""

from collections.abc import Callable
from math import nan

import pytest
import torch
from torch import Tensor

from fake_recorder import FakeGraphRecorder
from timebox.builders import build_augmentation, build_model, build_resizing
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Batch, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim import Optimizer, WeightAverage
from timebox.optim.loss import Loss
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.precision import Precision
from timebox.training import graphed_step as graphs
from timebox.training.graphed_step import GraphedStepRunner, build_step_runner, steps_agree
from timebox.training.pacer import StepPacer
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import PacedSchedule, StepPlan, lr_and_momentum_at
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner
from tiny import CPU, bands, tiny_recipe, tiny_training

NUM_STEPS = 12
BATCH = 16
STEP, UPDATE = Optimizer.step, WeightAverage.update_with_weight


def muon_recipe(**changes: int | float | str) -> Recipe:
    """The airbench94 recipe on a network small enough for a test; its whitening bias freezes at 3/8."""
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
    resident, statistics = ResidentImages.from_dataset(images, CPU), ChannelStatistics(half, half / 2)
    sampling = Sampling(recipe.batch_size, 0, recipe.ensemble_size)
    return DeviceLoader(resident, statistics, augmentation, sampling, resizing)


def run_steps(
    runner: StepRunner, state: TrainingState, recipe: Recipe, first: int, last: int, micro_batch: int = BATCH
) -> list[float]:
    """Run steps ``first`` to ``last`` of twelve, each with other rates, progress and images. Returns their losses."""
    loader, losses = loader_of(recipe), []
    for number in range(first, last + 1):
        # Unequal steps, as with a clock, so that the averaging weight changes too.
        progress = (number / NUM_STEPS) ** 1.3
        lr, momentum = lr_and_momentum_at(recipe, progress)
        losses.append(
            runner.run(loader.batch(state.step, state.progress), StepPlan(progress, lr, momentum, micro_batch))
        )
    return [loss.item() for loss in losses]


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    return state.snapshot().tensors


def graphed_runner(
    state: TrainingState, recorder: FakeGraphRecorder, messages: list[str] | None = None
) -> GraphedStepRunner:
    return GraphedStepRunner(state, Loss(0.1), recorder, [].append if messages is None else messages.append)


def assert_close(got: TrainingState, expected: TrainingState, tolerance: float) -> None:
    """Compare all tensors, with a tolerance relative to the norm of each."""
    for name, tensor in tensors_of(expected).items():
        if not tensor.is_floating_point():
            assert torch.equal(got.tensors()[name], tensor), name
            continue
        distance = (got.tensors()[name] - tensor).norm().item()
        assert distance <= tolerance * tensor.norm().item() + 1e-6, (name, distance, tensor.norm().item())


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name} {recipe.averaging_span}")
@pytest.mark.parametrize("micro_batch", [pytest.param(8, marks=pytest.mark.integration), BATCH])
def test_replayed_steps_equal_eager_steps(recipe: Recipe, micro_batch: int) -> None:
    """Twelve steps at learning rates so low that rounding errors do not grow from step to step."""
    recipe = recipe.replace(max_lr=recipe.max_lr / 100, filter_lr=recipe.filter_lr / 100)
    eager, other = state_of(recipe), state_of(recipe)
    expected = run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS, micro_batch)
    losses = run_steps(graphed_runner(other, FakeGraphRecorder()), other, recipe, 1, NUM_STEPS, micro_batch)
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_close(other, eager, 1e-5)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.name} {recipe.averaging_span}")
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.integration)])
@pytest.mark.parametrize("micro_batch", [pytest.param(8, marks=pytest.mark.integration), BATCH])
def test_each_replayed_step_equals_the_eager_step_from_the_same_state(
    recipe: Recipe, precision: str, micro_batch: int
) -> None:
    """Both continue from one state after each step: rates on the device differ from Python numbers in the last digit,
    and in bf16 rounding errors grow: a change of 1e-7 in the first weights alone makes twelve eager steps end as far
    apart as they are long."""
    eager, other = state_of(recipe, precision), state_of(recipe, precision)
    recorder, messages = FakeGraphRecorder(), []
    eager_runner, runner = EagerStepRunner(eager, Loss(0.1)), graphed_runner(other, recorder, messages)
    for number in range(1, NUM_STEPS + 1):
        expected = run_steps(eager_runner, eager, recipe, number, number, micro_batch)
        assert run_steps(runner, other, recipe, number, number, micro_batch) == expected
        assert_close(other, eager, 2e-6)
        eager.restore(other.snapshot())
    assert (other.step, other.progress) == (NUM_STEPS, 1.0)
    sizes = 3 if recipe.start_size < 1 else 1
    variants = sizes + (1 if recipe.whitening_bias_until else 0)
    assert recorder.num_recorded == variants
    assert recorder.num_replayed == NUM_STEPS + variants, "one comparison for each graph, and a replay for each step"
    assert messages == []


def step_with_python_numbers(optimizer: Optimizer, *args: object) -> None:
    STEP(optimizer)


def update_with_constant_share(average: WeightAverage, share: float | Tensor) -> None:
    UPDATE(average, 0.5)


def load_no_batch(runner: GraphedStepRunner, batch: Batch, ema_weight: float) -> Batch:
    runner._scalars.fill(runner._state.optimizer, ema_weight)
    return batch


@pytest.mark.parametrize(
    ("owner", "name", "wrong"),
    [
        (Optimizer, "step", step_with_python_numbers),
        (WeightAverage, "update_with_weight", update_with_constant_share),
        (GraphedStepRunner, "_load", load_no_batch),
    ],
)
def test_constants_in_a_recording_are_detected(
    owner: object, name: str, wrong: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the fake recorder too, a replay that ignores a changed number or a new batch is another step."""
    recipe = tiny_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS)
    monkeypatch.setattr(owner, name, wrong)
    runner = graphed_runner(other, FakeGraphRecorder())
    run_steps(runner, other, recipe, 1, NUM_STEPS)
    assert runner.num_recorded == 1
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
def test_prepare_records_all_graphs_and_changes_no_state(recipe: Recipe, variants: int) -> None:
    state, recorder = state_of(recipe), FakeGraphRecorder()
    runner = graphed_runner(state, recorder)
    run_steps(EagerStepRunner(state, Loss(0.1)), state, recipe, 1, 1)
    before, random = tensors_of(state), torch.get_rng_state()
    runner.prepare(loader_of(recipe), BATCH)
    assert recorder.num_recorded == variants
    assert recorder.num_recorded == recorder.num_warm_ups == recorder.num_replayed
    assert state.step == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors_of(state).items())
    assert all(parameter.grad is None for parameter in state.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    run_steps(runner, state, recipe, 2, NUM_STEPS)
    assert recorder.num_recorded == variants, "nothing is recorded during the training"


def test_steps_that_cannot_be_recorded_run_eagerly_with_one_message() -> None:
    recipe = muon_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    expected = run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, NUM_STEPS)
    messages: list[str] = []
    recorder = FakeGraphRecorder(
        fail=RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    )
    runner = graphed_runner(other, recorder, messages)
    assert run_steps(runner, other, recipe, 1, NUM_STEPS) == expected
    assert all(torch.equal(tensor, tensors_of(eager)[name]) for name, tensor in tensors_of(other).items())
    assert messages == ["steps are not recorded as a CUDA graph: operation not permitted when stream is capturing"]
    assert (runner.num_recorded, recorder.num_recorded) == (0, 1), "recording is not tried again for the other graph"


def test_a_step_that_reads_from_the_device_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, the recording of an operation that waits for the device fails."""

    def step_with_read(optimizer: Optimizer, lrs: list[Tensor] | None = None, momentum: Tensor | None = None) -> None:
        STEP(optimizer, lrs and [float(lr) for lr in lrs], momentum)

    monkeypatch.setattr(Optimizer, "step", step_with_read)
    recipe, messages = tiny_recipe(), []
    state = state_of(recipe)
    run_steps(graphed_runner(state, FakeGraphRecorder(), messages), state, recipe, 1, 2)
    assert [text.partition(":")[0] for text in messages] == ["steps are not recorded as a CUDA graph"]


def test_a_graph_whose_replay_differs_is_not_used() -> None:
    recipe = tiny_recipe()
    eager, other = state_of(recipe), state_of(recipe)
    expected = run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, 4)
    messages: list[str] = []
    runner = graphed_runner(other, FakeGraphRecorder(spoil=0.2), messages)
    assert run_steps(runner, other, recipe, 1, 4) == expected
    assert messages == [
        "steps are not recorded as a CUDA graph: a replayed step differs from the same step run eagerly"
    ]


def test_other_errors_during_a_recording_are_raised() -> None:
    recipe = tiny_recipe()
    state = state_of(recipe)
    with pytest.raises(KeyboardInterrupt):
        run_steps(graphed_runner(state, FakeGraphRecorder(fail=KeyboardInterrupt())), state, recipe, 1, 1)


def test_a_smaller_micro_batch_is_recorded_and_graphs_of_the_larger_are_dropped() -> None:
    recipe, recorder = tiny_recipe(), FakeGraphRecorder()
    state = state_of(recipe)
    runner = graphed_runner(state, recorder)
    run_steps(runner, state, recipe, 1, 2)
    run_steps(runner, state, recipe, 3, 4, micro_batch=8)
    assert (recorder.num_recorded, runner.num_recorded) == (2, 1)


def test_a_rollback_keeps_all_addresses() -> None:
    """After a rollback the same graph continues from the older weights."""
    recipe, recorder = tiny_recipe(), FakeGraphRecorder()
    eager, other = state_of(recipe), state_of(recipe)
    run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, 6)
    runner = graphed_runner(other, recorder)
    schedule = PacedSchedule(StepPacer(NUM_STEPS), recipe, BATCH)
    run_steps(runner, other, recipe, 1, 3)
    guard = RollbackGuard(other, schedule, recipe, 3, [].append)
    addresses = {name: tensor.data_ptr() for name, tensor in other.tensors().items()}
    run_steps(runner, other, recipe, 4, 6)
    other.restore(guard.latest)
    run_steps(runner, other, recipe, 4, 6)
    assert {name: tensor.data_ptr() for name, tensor in other.tensors().items()} == addresses
    assert recorder.num_recorded == 1
    assert_close(other, eager, 1e-3)


def test_graphs_continue_from_the_snapshot_of_another_state() -> None:
    recipe = muon_recipe()
    eager, first, second = (state_of(recipe) for _ in range(3))
    run_steps(EagerStepRunner(eager, Loss(0.1)), eager, recipe, 1, 8)
    run_steps(graphed_runner(first, FakeGraphRecorder()), first, recipe, 1, 4)
    runner = graphed_runner(second, FakeGraphRecorder())
    runner.prepare(loader_of(recipe), BATCH)
    second.restore(first.snapshot())
    run_steps(runner, second, recipe, 5, 8)
    assert_close(second, eager, 1e-3)


def test_the_training_loop_has_equal_results_with_graphed_steps() -> None:
    """At a learning rate so low that rounding errors do not grow from step to step."""
    recipe = tiny_recipe(max_lr=5e-4)

    def recorded(state: TrainingState, loss_fn: Loss) -> StepRunner:
        return GraphedStepRunner(state, loss_fn, FakeGraphRecorder(), [].append)

    plain, log = tiny_training(20, recipe=recipe)
    trained, other = tiny_training(20, recipe=recipe, make_step_runner=recorded)
    assert [entry["loss"] for entry in other] == pytest.approx([entry["loss"] for entry in log], rel=1e-5)
    assert [{**entry, "loss": 0} for entry in other] == [{**entry, "loss": 0} for entry in log]
    for got, expected in zip(trained.model.parameters(), plain.model.parameters(), strict=True):
        assert (got - expected).norm() <= 1e-4 * expected.norm() + 1e-6


@pytest.mark.parametrize(
    ("device", "precision", "recorded"),
    [("cpu", "fp32", False), ("cuda", "fp32", True), ("cuda", "bf16", True), ("cuda", "fp16", False)],
)
def test_steps_are_graphed_on_a_gpu_only_and_not_in_fp16(
    device: str, precision: str, recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "CudaGraphRecorder", lambda device: FakeGraphRecorder())
    monkeypatch.setattr(graphs, "GraphScalars", lambda num_groups, device: None)
    state = state_of(tiny_recipe())
    state.precision.device, state.precision.name = torch.device(device), precision
    assert isinstance(
        build_step_runner(state, Loss(0.1), [].append), GraphedStepRunner if recorded else EagerStepRunner
    )


def states(**changes: Tensor) -> dict[str, Tensor]:
    return {"model.a": torch.ones(4), "model.b": torch.zeros(2), "model.count": torch.tensor(3), **changes}


@pytest.mark.parametrize(
    ("actual", "agree"),
    [
        (states(), True),
        (states(**{"model.a": torch.full((4,), 1.001)}), True),
        (states(**{"model.a": torch.full((4,), 1.1)}), False),
        (states(**{"model.a": torch.full((4,), nan)}), False),
        (states(**{"model.count": torch.tensor(4)}), False),
    ],
)
def test_the_tolerance_is_relative_to_the_length_of_the_step(actual: dict[str, Tensor], agree: bool) -> None:
    before = states(**{"model.a": torch.zeros(4), "model.count": torch.tensor(2)})
    assert steps_agree(before, states(), actual) is agree
