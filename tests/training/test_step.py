"""The training step on micro-batches: equal to the step on the whole batch where they are whole ghost groups."""

from contextlib import suppress
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from timebox.builders import build_model
from timebox.data.device.loader import Batch
from timebox.models import networks_of
from timebox.optim import Optimizer, sgd_group
from timebox.optim.loss import Loss
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.micro_batches import smaller_micro_batch, split_batch
from timebox.runtime.precision import Precision
from timebox.runtime.threads import keep_num_threads
from timebox.training.schedule import StepPlan
from timebox.training.state import Snapshot, TrainingState
from timebox.training.step import ABORTABLE_SECONDS, EagerStepRunner, StepAbortedError, training_step
from tiny import CPU, tiny_recipe

examples = settings(derandomize=True, max_examples=200, deadline=None)
sizes = st.integers(1, 5000)
GHOST = 4


def batch_of(num: int, side: int = 8) -> Batch:
    """Random images whose mean rises with their index, so that the statistics of ghost groups differ."""
    generator = torch.Generator().manual_seed(num)
    images = torch.randn(num, 3, side, side, generator=generator) + torch.linspace(-1, 1, num)[:, None, None, None]
    return Batch(images.to(memory_format=torch.channels_last), torch.arange(num) % 3)


def state_of(model: nn.Module, precision: Precision) -> TrainingState:
    return TrainingState(model, tiny_recipe(averaging_span=0.0), precision)


def one_step(num: int, micro_batch: int, precision: str = "fp32", ghost: int = GHOST) -> tuple[Tensor, nn.Module]:
    """Run one step on ``num`` images. Returns its loss and the network."""
    torch.manual_seed(0)
    model = build_model(tiny_recipe(ghost_size=ghost), 3, 3).train()
    state = state_of(model, Precision(precision, CPU))
    state.optimizer = Optimizer([sgd_group([p for p in model.parameters() if p.requires_grad], 5e-4)], 0.05, 0.9)
    loss = training_step(state, Loss(0.1), batch_of(num), micro_batch)
    assert all(parameter.grad is None for parameter in model.parameters())
    return loss, model


# With 17 images the last group has one image and joins the group before; with 18 it has two; with 16 it is full.
@pytest.mark.parametrize("num", [16, 17, 18])
@pytest.mark.parametrize("micro_batch", [4, 8, 12])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 3e-2), ("fp16", 4e-3)])
def test_micro_batches_of_whole_groups_equal_the_whole_batch(
    num: int, micro_batch: int, precision: str, tolerance: float
) -> None:
    torch.manual_seed(0)
    before = build_model(tiny_recipe(ghost_size=GHOST), 3, 3).state_dict()
    whole_loss, whole = one_step(num, num, precision)
    loss, split = one_step(num, micro_batch, precision)
    assert loss.item() == pytest.approx(whole_loss.item(), rel=tolerance)
    for name, tensor in whole.state_dict().items():
        step_length = (tensor - before[name]).float().norm().item()
        distance = (split.state_dict()[name] - tensor).float().norm().item()
        assert distance <= tolerance * step_length + 1e-7, name


def test_running_statistics_are_updated_once_per_group() -> None:
    for micro_batch in (4, 8, 16):
        _, model = one_step(16, micro_batch)
        counts = {int(t) for name, t in model.state_dict().items() if name.endswith("num_batches_tracked")}
        assert counts == {4}


def test_micro_batches_that_split_a_group_differ_from_the_whole_batch() -> None:
    """The comparison of the test above detects a difference."""
    _, whole = one_step(16, 16, ghost=0)
    _, split = one_step(16, 8, ghost=0)
    differences = [
        (split.state_dict()[name] - t).float().norm() / t.float().norm() for name, t in whole.named_buffers()
    ]
    assert max(float(d) for d in differences) > 1e-3


def test_the_loss_is_the_mean_over_images_for_unequal_micro_batches() -> None:
    class LinearModel(nn.Module):
        """Logits that depend on a single image, without normalisation."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] * self.weight

    def step(micro_batch: int) -> tuple[float, Tensor]:
        model = LinearModel()
        state = state_of(model, Precision("fp32", CPU))
        state.optimizer = Optimizer([sgd_group([model.weight], 0.0)], 0.1, 0.9)
        loss = training_step(state, Loss(0.0), batch_of(11), micro_batch)
        return loss.item(), model.weight.detach()

    whole_loss, whole = step(11)
    for micro_batch in (2, 3, 4, 9):
        loss, weight = step(micro_batch)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        assert torch.allclose(weight, whole, rtol=1e-6)


@examples
@given(num=st.integers(2, 300), size=st.integers(2, 400))
def test_micro_batches_are_the_batch_in_order_and_none_is_a_single_image(num: int, size: int) -> None:
    batch = Batch(torch.arange(num), torch.arange(num))
    micro_batches = list(split_batch(batch, size))
    assert torch.cat([micro.images for micro in micro_batches]).tolist() == list(range(num))
    assert [micro.labels.tolist() for micro in micro_batches] == [micro.images.tolist() for micro in micro_batches]
    lengths = [len(micro.labels) for micro in micro_batches]
    assert min(lengths) >= 2
    assert all(length == size for length in lengths[:-1])
    assert lengths[-1] <= size + 1


@examples
@given(size=sizes, ghost_size=st.integers(2, 600))
def test_a_smaller_micro_batch_is_about_half_in_whole_groups(size: int, ghost_size: int) -> None:
    smaller = smaller_micro_batch(size, ghost_size)
    if smaller is None:
        assert size <= ghost_size
        return
    assert smaller % ghost_size == 0
    assert ghost_size <= smaller < size
    assert size / 2 <= smaller < size / 2 + ghost_size


@examples
@given(size=sizes, ghost_size=st.integers(2, 600))
def test_repeated_halving_ends_at_a_single_group(size: int, ghost_size: int) -> None:
    last, halvings = size, 0
    while (smaller := smaller_micro_batch(last, ghost_size)) is not None:
        last, halvings = smaller, halvings + 1
    assert last <= max(ghost_size, 1)
    assert halvings <= 13


@given(size=sizes)
@examples
def test_a_batch_without_ghost_groups_cannot_be_halved(size: int) -> None:
    assert smaller_micro_batch(size, 0) is None


def test_each_network_of_an_ensemble_is_trained_as_if_alone() -> None:
    """Each on its slice of the batch, also in micro-batches; the loss is the mean over the networks."""
    recipe, batch = tiny_recipe(ghost_size=GHOST, ensemble_size=2), batch_of(32)

    def step_loss(model: nn.Module, batch: Batch) -> float:
        state = state_of(model, Precision("fp32", CPU))
        state.optimizer = Optimizer([sgd_group([p for p in model.parameters() if p.requires_grad], 5e-4)], 0.05, 0.9)
        return training_step(state, Loss(0.1), batch, 8).item()

    torch.manual_seed(0)
    together = build_model(recipe, 3, 3).train()
    torch.manual_seed(0)
    alone = networks_of(build_model(recipe, 3, 3).train())
    loss = step_loss(together, batch)
    losses = [step_loss(network, half) for network, half in zip(alone, split_batch(batch, 16), strict=True)]
    assert losses[0] != losses[1]
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-6)
    for in_ensemble, network in zip(networks_of(together), alone, strict=True):
        for name, tensor in in_ensemble.state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize(("planned", "threads"), [(2, 2), (1, 1), (None, 1)])
def test_a_step_runs_with_the_threads_of_its_plan(planned: int | None, threads: int) -> None:
    state = state_of(build_model(tiny_recipe(), 3, 3).train(), Precision("fp32", CPU))
    with keep_num_threads():
        torch.set_num_threads(1)
        EagerStepRunner(state, Loss(0.1)).run(batch_of(4), StepPlan(1.0, 0.01, 0.9, 4, planned))
        assert torch.get_num_threads() == threads


class Clock:
    """Time that runs out at the ``calls``-th reading, and the number of readings."""

    def __init__(self, calls: float) -> None:
        self._calls, self.num_read = calls, 0

    def __call__(self) -> float:
        self.num_read += 1
        return 0.0 if self.num_read >= self._calls else 1.0


def run_two_steps(clock: Clock, recipe: Recipe, micro_batch: int) -> tuple[Snapshot, Snapshot, TrainingState]:
    """The state before and after the second of two steps; time is read in that one only."""
    torch.manual_seed(0)
    batch = batch_of(16, 12 if recipe.model == "airbench" else 8)
    state = TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision("fp32", CPU))
    EagerStepRunner(state, Loss(0.1)).run(batch, StepPlan(0.25, 0.05, 0.9, 16))
    before = state.snapshot()
    with suppress(StepAbortedError):
        EagerStepRunner(state, Loss(0.1), clock).run(batch, StepPlan(0.5, 0.04, 0.8, micro_batch))
    return before, state.snapshot(), state


@pytest.mark.parametrize(
    "recipe",
    [
        tiny_recipe(averaging_span=0.0),
        tiny_recipe(averaging_span=0.1, ensemble_size=2),
        get_recipe("airbench94").replace(width=4, averaging_span=0.0, whitening_bias_until=0.4),
    ],
)
@pytest.mark.parametrize("micro_batch", [8, 16])
def test_a_step_is_aborted_wherever_time_runs_out_and_changes_nothing(recipe: Recipe, micro_batch: int) -> None:
    whole = Clock(inf)
    _, expected, done = run_two_steps(whole, recipe, micro_batch)
    assert done.step == 2
    num_layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in done.model.modules())
    assert whole.num_read > 2 * num_layers - 2, "in the forward and the backward pass of each layer but frozen ones"
    for calls in range(2, whole.num_read + 1):
        before, after, state = run_two_steps(Clock(calls), recipe, micro_batch)
        assert (state.step, state.progress) == (1, 0.25)
        assert (state.optimizer.lr, state.optimizer.momentum) == (0.05, 0.9)
        assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in after.tensors.items())
        assert all(p.grad is None and p.requires_grad for group in state.optimizer.groups for p in group.parameters)
        assert not any(module._forward_pre_hooks for module in state.model.modules())
    assert any(not torch.equal(tensor, before.tensors[name]) for name, tensor in expected.tensors.items())


def test_reading_the_time_changes_no_step() -> None:
    _, expected, _ = run_two_steps(Clock(inf), tiny_recipe(), 16)
    _, plain, _ = run_two_steps(lambda: 2 * ABORTABLE_SECONDS, tiny_recipe(), 16)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, plain.tensors[name]) for name, tensor in expected.tensors.items())


def test_the_first_step_is_not_aborted() -> None:
    """A training without a step has no model to give."""
    recipe = tiny_recipe()
    state = TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision("fp32", CPU))
    EagerStepRunner(state, Loss(0.1), lambda: -5.0).run(batch_of(16), StepPlan(0.25, 0.05, 0.9, 16))
    assert state.step == 1
