"""Graphed steps on a real GPU: `pytest -m gpu tests/training/test_graphed_step_gpu.py`."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from timebox.builders import build_model
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim import Optimizer
from timebox.optim.loss import Loss
from timebox.recipes import Recipe, get_recipe
from timebox.runtime.cuda_graphs import CudaGraphRecorder
from timebox.runtime.precision import Precision
from timebox.runtime.timing import cudnn_benchmark
from timebox.training.graphed_step import GraphedStepRunner, steps_agree
from timebox.training.schedule import StepPlan, lr_and_momentum_at
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner, StepRunner
from tiny import bands, tiny_recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda")
NUM_STEPS, BATCH = 8, 32


@pytest.fixture(autouse=True)
def tuned() -> Iterator[None]:
    with cudnn_benchmark():
        yield


def recipes() -> list[Recipe]:
    """Learning rates so low that rounding errors do not grow from step to step."""
    small = {"width": 16, "batch_size": BATCH, "averaging_span": 0.1}
    airbench = get_recipe("airbench94").replace(**small, max_lr=10.0)
    return [
        tiny_recipe(**small, max_lr=0.005, bias_lr_multiplier=1.0),
        airbench,
        airbench.replace(name="blurred", blur_pool=True),
    ]


def state_of(recipe: Recipe, precision: str) -> TrainingState:
    torch.manual_seed(0)
    return TrainingState(build_model(recipe, 3, 3).to(CUDA).train(), recipe, Precision(precision, CUDA))


def loader_of(recipe: Recipe) -> DeviceLoader:
    half = torch.full((3,), 0.5)
    augmentation = Augmentation(crop_padding=1, flip="alternating", cutout_size=3)
    images, statistics = ResidentImages.from_dataset(bands(200, side=16), CUDA), ChannelStatistics(half, half / 2)
    return DeviceLoader(images, statistics, augmentation, Sampling(recipe.batch_size, seed=0))


def run_steps(runner: StepRunner, state: TrainingState, recipe: Recipe, first: int, last: int) -> list[Tensor]:
    loader, losses = loader_of(recipe), []
    for number in range(first, last + 1):
        progress = number / NUM_STEPS
        losses.append(
            runner.run(loader.batch(state.step), StepPlan(progress, *lr_and_momentum_at(recipe, progress), BATCH))
        )
    return losses


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_replayed_steps_equal_eager_steps(recipe: Recipe, precision: str) -> None:
    eager, other, messages = state_of(recipe, precision), state_of(recipe, precision), []
    runner = GraphedStepRunner(other, Loss(0.1), CudaGraphRecorder(CUDA), messages.append)
    before = other.snapshot().tensors
    runner.prepare(loader_of(recipe), BATCH)
    assert messages == []
    assert runner.num_recorded == (2 if recipe.model == "airbench" else 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.tensors().items())
    eager_runner = EagerStepRunner(eager, Loss(0.1))
    for number in range(1, NUM_STEPS + 1):
        start = eager.snapshot()
        other.restore(start)
        (expected,) = run_steps(eager_runner, eager, recipe, number, number)
        (loss,) = run_steps(runner, other, recipe, number, number)
        torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)
        assert steps_agree(start.tensors, eager.snapshot().tensors, other.snapshot().tensors)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("recorded", [False, True])
def test_no_step_waits_for_the_device(recipe: Recipe, recorded: bool) -> None:
    state = state_of(recipe, "bf16")
    runner: StepRunner = EagerStepRunner(state, Loss(0.1))
    if recorded:
        runner = GraphedStepRunner(state, Loss(0.1), CudaGraphRecorder(CUDA), lambda text: pytest.fail(text))
    loader = loader_of(recipe)
    runner.prepare(loader, BATCH)
    progress, rates = 0.1, lr_and_momentum_at(recipe, 0.1)
    batches = [loader.batch(number) for number in range(2)]
    runner.run(batches[0], StepPlan(progress, *rates, BATCH))
    try:
        torch.cuda.set_sync_debug_mode("error")
        loader.batch(2)
        loss = runner.run(batches[1], StepPlan(2 * progress, *rates, BATCH))
        state.snapshot()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()


def test_a_failed_recording_changes_neither_stream_nor_state(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Optimizer.step

    def step_with_read(optimizer: Optimizer, lrs: list[Tensor] | None = None, momentum: Tensor | None = None) -> None:
        step(optimizer, lrs and [float(lr) for lr in lrs], momentum)

    recipe, messages = tiny_recipe(batch_size=BATCH), []
    state, stream = state_of(recipe, "fp32"), torch.cuda.current_stream()
    monkeypatch.setattr(Optimizer, "step", step_with_read)
    runner = GraphedStepRunner(state, Loss(0.1), CudaGraphRecorder(CUDA), messages.append)
    before = state.snapshot().tensors
    runner.prepare(loader_of(recipe), BATCH)
    assert torch.cuda.current_stream() == stream
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    assert len(messages) == 1
    assert all(loss.isfinite() for loss in run_steps(runner, state, recipe, 1, 3))


def test_graphs_continue_after_a_rollback() -> None:
    recipe = recipes()[0]
    state = state_of(recipe, "fp32")
    runner = GraphedStepRunner(state, Loss(0.1), CudaGraphRecorder(CUDA), lambda text: pytest.fail(text))
    run_steps(runner, state, recipe, 1, 3)
    start = state.snapshot()
    run_steps(runner, state, recipe, 4, 6)
    first = state.snapshot().tensors
    state.restore(start)
    run_steps(runner, state, recipe, 4, 6)
    assert steps_agree(start.tensors, first, state.snapshot().tensors)
    assert runner.num_recorded == 1
