"""Training state and snapshots: complete, and restored exactly."""

import pytest
import torch
from torch import nn

from timebox.builders import build_model
from timebox.data.device.loader import Batch
from timebox.optim.loss import Loss
from timebox.recipes import Recipe
from timebox.runtime.precision import Precision
from timebox.training.state import TrainingState
from timebox.training.step import training_step
from tiny import CPU, tiny_recipe

Bytes = dict[str, bytes]


def state_of(recipe: Recipe | None = None, precision: str = "fp32") -> TrainingState:
    recipe = recipe or tiny_recipe()
    torch.manual_seed(0)
    return TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision(precision, CPU, initial_scale=8.0))


def run_steps(state: TrainingState, first: int, last: int, overflow: bool = False) -> None:
    """Run steps ``first`` to ``last`` of twenty, each on other images."""
    for number in range(first, last + 1):
        images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        batch = Batch(images * (float("inf") if overflow else 1.0), torch.arange(16) % 3)
        state.optimizer.prepare(0.02, 0.9, number / 20)
        training_step(state, Loss(0.0), batch, 16)
        state.advance(number / 20)


def contents(state: TrainingState) -> Bytes:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.tensors().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("span", [0.0, 0.1])
def test_steps_repeated_from_a_snapshot_give_equal_bytes(precision: str, span: float) -> None:
    state = state_of(tiny_recipe(averaging_span=span), precision)
    run_steps(state, 1, 4)
    snapshot, before = state.snapshot(), contents(state)
    run_steps(state, 5, 8)
    uninterrupted = contents(state)
    assert uninterrupted.keys() == before.keys()
    assert all(uninterrupted[name] != before[name] for name in before if name.startswith("momentum."))
    state.restore(snapshot)
    assert (state.step, state.progress) == (4, 0.2)
    assert contents(state) == before
    run_steps(state, 5, 8)
    assert contents(state) == uninterrupted


def test_a_snapshot_restores_another_state_exactly() -> None:
    state, other = state_of(), state_of()
    run_steps(state, 1, 3)
    other.restore(state.snapshot())
    run_steps(state, 4, 6)
    run_steps(other, 4, 6)
    assert contents(other) == contents(state)
    assert (other.step, other.progress) == (6, 0.3)


def test_a_snapshot_shares_no_memory() -> None:
    state = state_of(precision="fp16")
    run_steps(state, 1, 2)
    snapshot = state.snapshot()
    before = {name: tensor.numpy().tobytes() for name, tensor in snapshot.tensors.items()}
    addresses = {tensor.data_ptr() for tensor in state.tensors().values()}
    assert not addresses & {tensor.data_ptr() for tensor in snapshot.tensors.values()}
    assert not any(tensor.requires_grad for tensor in snapshot.tensors.values())
    state.restore(snapshot)
    assert {tensor.data_ptr() for tensor in state.tensors().values()} == addresses, "restored in place"
    run_steps(state, 3, 4)
    assert {name: tensor.numpy().tobytes() for name, tensor in snapshot.tensors.items()} == before


def test_a_snapshot_has_all_tensors_that_a_step_changes() -> None:
    """Weights, running statistics, momentum, averaged weights and the loss scaler."""
    state = state_of(precision="fp16")
    names = set(state.tensors())
    trained = {f"model.{name}" for name, _ in state.model.named_parameters()}
    assert trained | {f"model.{name}" for name, _ in state.model.named_buffers()} == {
        name for name in names if name.startswith("model.")
    }
    assert {name for name in names if name.startswith("momentum.")} == {
        f"momentum.{name}" for name, weight in state.model.named_parameters() if weight.requires_grad
    }
    assert {name.removeprefix("average.") for name in names if name.startswith("average.")} == {
        name.removeprefix("model.") for name in names if name.startswith("model.")
    }
    assert {name for name in names if name.startswith("scaler.")} == {"scaler.scale", "scaler.growth"}
    assert len(names) == sum(1 for name in names if name.split(".")[0] in ("model", "momentum", "average", "scaler"))


def test_without_averaging_there_is_no_average_and_in_fp32_no_scaler() -> None:
    prefixes = {name.split(".")[0] for name in state_of(tiny_recipe(averaging_span=0.0)).tensors()}
    assert prefixes == {"model", "momentum"}


def test_the_loss_scale_is_restored() -> None:
    state = state_of(precision="fp16")
    run_steps(state, 1, 1)
    snapshot = state.snapshot()
    run_steps(state, 2, 3, overflow=True)
    assert state.precision.loss_scale == 2.0
    state.restore(snapshot)
    assert state.precision.loss_scale == 8.0
    growth = state.tensors()["scaler.growth"]
    assert int(growth) == 1


def test_restoring_drops_the_gradients_of_a_failed_step() -> None:
    state = state_of()
    snapshot = state.snapshot()
    state.model(torch.randn(16, 3, 8, 8)).sum().backward()
    state.restore(snapshot)
    assert all(parameter.grad is None for parameter in state.model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("prefix", ["model", "momentum", "average", "scaler"])
def test_a_snapshot_with_a_nan_or_infinity_is_not_finite(prefix: str, value: float) -> None:
    state = state_of(precision="fp16")
    assert state.snapshot().is_finite()
    name = next(name for name, t in state.tensors().items() if name.startswith(prefix) and t.is_floating_point())
    with torch.no_grad():
        tensor = state.tensors()[name]
        tensor[(-1,) * tensor.dim()] = value
    assert not state.snapshot().is_finite()


def test_metadata_is_read_when_a_snapshot_is_taken() -> None:
    metadata = iter([{"lines": 3}, {"lines": 7}])
    state = TrainingState(
        build_model(tiny_recipe(), 3, 3), tiny_recipe(), Precision("fp32", CPU), lambda: next(metadata)
    )
    assert state.snapshot().metadata == {"lines": 3}
    assert state.snapshot().metadata == {"lines": 7}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("span", [0.0, 0.1])
def test_names_and_shapes_of_a_meta_state_equal_the_real_ones(precision: str, span: float) -> None:
    """A run directory is read with a network on the meta device, which allocates no memory."""
    recipe = tiny_recipe(averaging_span=span)
    real = state_of(recipe, precision).tensors()
    with torch.device("meta"):
        model: nn.Module = build_model(recipe, 3, 3)
    bare = TrainingState(model, recipe, Precision(precision, CPU)).tensors()
    assert {name: (t.shape, t.dtype) for name, t in bare.items()} == {n: (t.shape, t.dtype) for n, t in real.items()}
    assert all(t.is_meta for name, t in bare.items() if not name.startswith("scaler."))
