"""Rollback: snapshots restored after a fault, lower learning rate or micro-batch, and the end of a training."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from timebox.builders import build_model
from timebox.errors import TimeboxError
from timebox.models import GhostBatchNorm
from timebox.runtime.faults import NonFiniteError, OutOfMemoryError, RecoverableError, convert_memory_errors
from timebox.runtime.precision import Precision
from timebox.training.pacer import StepPacer
from timebox.training.rollback import MAX_ROLLBACKS, ROLLBACK_WINDOW_STEPS, RollbackGuard
from timebox.training.schedule import PacedSchedule
from timebox.training.state import TrainingState
from tiny import CPU, tiny_recipe


class Training:
    """A training of 1000 steps, in which each step sets all weights to its number."""

    def __init__(self, snapshot_steps: int = 10, batch_size: int = 64, ghost_size: int = 8) -> None:
        recipe = tiny_recipe(batch_size=batch_size, ghost_size=ghost_size)
        self.state = TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision("fp32", CPU))
        self.schedule = PacedSchedule(StepPacer(1000), recipe, batch_size)
        self.messages: list[str] = []
        self.guard = RollbackGuard(self.state, self.schedule, recipe, snapshot_steps, self.messages.append)

    def run_to(self, step: int) -> None:
        while self.state.step < step:
            step_plan = self.schedule.next(0)
            assert step_plan
            self.fill(self.state.step + 1)
            self.state.advance(step_plan.progress)
            self.guard.snapshot_if_due()

    def fill(self, value: float) -> None:
        with torch.no_grad():
            for parameter in self.state.model.parameters():
                parameter.fill_(value)

    @property
    def weight(self) -> float:
        values = {float(v) for p in self.state.model.parameters() for v in p.detach().flatten()}
        assert len(values) == 1
        return values.pop()

    @property
    def norm_sizes(self) -> set[int]:
        return {m.ghost_size for m in self.state.model.modules() if isinstance(m, GhostBatchNorm)}


def test_a_nan_loss_restores_the_latest_snapshot_and_halves_the_learning_rate() -> None:
    training = Training(snapshot_steps=10)
    training.run_to(27)
    training.guard.recover(NonFiniteError("the loss became nan at a learning rate of 0.05", 27))
    assert (training.state.step, training.weight) == (20, 20.0)
    assert training.state.progress == pytest.approx(0.02)
    assert training.schedule.lr_factor == 0.5
    step_plan = training.schedule.next(0)
    assert step_plan and step_plan.progress == pytest.approx(0.021), "the schedule continues from the snapshot"
    assert training.messages == [
        "the loss became nan at a learning rate of 0.05 at step 27: back to step 20 and on at 0.5 times "
        "the learning rate"
    ]


def test_before_the_first_snapshot_the_initial_state_is_restored() -> None:
    training = Training()
    training.fill(0.0)
    training.guard = RollbackGuard(
        training.state, training.schedule, tiny_recipe(batch_size=64, ghost_size=8), 10, training.messages.append
    )
    training.run_to(7)
    training.guard.recover(NonFiniteError("the loss became nan", 7))
    assert (training.state.step, training.state.progress, training.weight) == (0, 0.0, 0.0)


def test_a_rollback_drops_gradients_and_momentum_of_the_faulty_step() -> None:
    training = Training()
    training.run_to(10)
    for group in training.state.optimizer.groups:
        for parameter, buffer in zip(group.parameters, group.buffers, strict=True):
            parameter.grad = torch.full_like(parameter, float("nan"))
            buffer.fill_(float("inf"))
    training.guard.recover(NonFiniteError("the weights are not finite numbers", 11))
    assert training.state.snapshot().is_finite()
    assert all(parameter.grad is None for parameter in training.state.model.parameters())


def test_a_snapshot_that_is_not_finite_is_skipped() -> None:
    training = Training(snapshot_steps=10)
    training.run_to(19)
    training.fill(float("nan"))
    training.state.advance(0.02)
    training.guard.snapshot_if_due()
    assert training.guard.latest.step == 20
    training.guard.recover(NonFiniteError("the loss became nan", 21))
    assert (training.state.step, training.weight) == (10, 10.0)
    assert "back to step 10 " in training.messages[0], "the message names the restored step"


def test_a_finite_snapshot_from_after_the_faulty_step_is_skipped() -> None:
    """Where the device lags behind, the loss of a step is known some steps later."""
    training = Training(snapshot_steps=10)
    training.run_to(22)
    training.guard.recover(NonFiniteError("the loss became inf", 20))
    assert training.state.step == 10


def test_a_recurring_fault_restores_the_older_snapshot_and_ends_the_training() -> None:
    """Weights that diverge are finite for some steps: after two faults from one snapshot the older one is used."""
    training = Training(snapshot_steps=10)
    training.run_to(15)
    restored_steps = []
    for round_number in range(1, MAX_ROLLBACKS + 1):
        training.guard.recover(NonFiniteError("the loss became nan", 16))
        restored_steps.append(training.state.step)
        assert training.schedule.lr_factor == 0.5**round_number
        training.run_to(15)
    assert restored_steps == [10, 0, 10, 0, 10, 0], "a new snapshot is tried once"
    expected = (
        "the loss became nan at step 16, and again after each of 6 rollbacks in a row, each at half the learning rate; "
        'lower the learning rate with settings=["max_lr=VALUE"], or use precision="fp32"'
    )
    with pytest.raises(TimeboxError, match=re.escape(expected)):
        training.guard.recover(NonFiniteError("the loss became nan", 16))


def test_the_oldest_snapshot_is_never_dropped() -> None:
    training = Training(snapshot_steps=10)
    training.run_to(5)
    for _ in range(3):
        training.guard.recover(NonFiniteError("the loss became nan", 6))
        assert training.state.step == 0
        training.run_to(5)


def test_running_out_of_memory_does_not_discredit_a_snapshot() -> None:
    training = Training(snapshot_steps=10)
    training.run_to(15)
    training.guard.recover(OutOfMemoryError("no room"))
    training.guard.recover(NonFiniteError("the loss became nan", 16))
    assert training.state.step == 10


def test_faults_far_apart_do_not_end_the_training() -> None:
    training = Training(snapshot_steps=50)
    for number in range(1, 3 * MAX_ROLLBACKS):
        training.run_to(min(number * 50, 900))
        training.guard.recover(
            NonFiniteError("the loss became nan", number * (ROLLBACK_WINDOW_STEPS // MAX_ROLLBACKS + 1))
        )
    assert len(training.messages) == 3 * MAX_ROLLBACKS - 1


def test_faults_within_the_window_end_the_training() -> None:
    training = Training()
    apart = ROLLBACK_WINDOW_STEPS // MAX_ROLLBACKS
    for number in range(MAX_ROLLBACKS):
        training.guard.recover(NonFiniteError("the loss became nan", 1 + number * apart))
    with pytest.raises(TimeboxError):
        training.guard.recover(NonFiniteError("the loss became nan", 1 + MAX_ROLLBACKS * apart))


def test_out_of_memory_halves_the_micro_batch_in_whole_groups() -> None:
    training = Training(batch_size=64, ghost_size=8)
    training.run_to(12)
    sizes = []
    for _ in range(3):
        training.guard.recover(OutOfMemoryError("no room"))
        sizes.append(training.schedule.micro_batch)
        assert (training.state.step, training.weight) == (10, 10.0)
    assert sizes == [32, 16, 8]
    assert training.norm_sizes == {8}, "the normalisation does not change"
    assert training.schedule.lr_factor == 1.0
    assert training.messages == [
        f"memory ran out: batches of 64 are computed in micro-batches of {size} images" for size in sizes
    ]
    step_plan = training.schedule.next(0)
    assert step_plan and step_plan.micro_batch == 8


def test_below_one_group_the_normalisation_changes_with_a_message() -> None:
    training = Training(batch_size=64, ghost_size=32)
    sizes = []
    for _ in range(4):
        training.guard.recover(OutOfMemoryError("no room"))
        sizes.append((training.schedule.micro_batch, training.norm_sizes))
    assert sizes == [(32, {32}), (16, {16}), (8, {8}), (4, {4})]
    assert training.messages[0] == "memory ran out: batches of 64 are computed in micro-batches of 32 images"
    assert training.messages[1:] == [
        f"memory ran out: batches of 64 are computed in micro-batches of {size} images, "
        f"each normalised by itself from now on"
        for size in (16, 8, 4)
    ]
    with pytest.raises(TimeboxError, match=r"^memory ran out with 4 images at a time; make the network smaller with"):
        training.guard.recover(OutOfMemoryError("no room"))


def test_normalisation_over_the_whole_batch_changes_at_the_first_split() -> None:
    training = Training(batch_size=50, ghost_size=0)
    training.guard.recover(OutOfMemoryError("no room"))
    assert (training.schedule.micro_batch, training.norm_sizes) == (25, {25})
    assert training.messages[0].endswith("each normalised by itself from now on")


def test_the_error_at_the_end_names_the_cause() -> None:
    training = Training(batch_size=6, ghost_size=0)
    fault = OutOfMemoryError("no room")
    expected = r"6 images at a time.*settings=\[.width=VALUE.\].*settings=\[.image_size=VALUE.\]"
    with pytest.raises(TimeboxError, match=expected) as caught:
        training.guard.recover(fault)
    assert caught.value.__cause__ is fault


def allocate_with_torch() -> object:
    return torch.empty(1 << 56, dtype=torch.uint8)


def allocate_with_numpy() -> object:
    return np.empty(1 << 56, dtype=np.uint8)


def allocate_on_a_full_gpu() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("allocate", [allocate_with_torch, allocate_with_numpy, allocate_on_a_full_gpu])
def test_all_memory_errors_are_converted(allocate: Callable[[], object]) -> None:
    with pytest.raises(OutOfMemoryError) as caught, convert_memory_errors():
        allocate()
    assert isinstance(caught.value, RecoverableError)
    assert str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError | MemoryError)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory"), KeyboardInterrupt()]
)
def test_other_errors_are_not_converted(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, convert_memory_errors():
        raise error
    assert caught.value is error
