"""Faults in a step: what is undone, what is changed so that they do not come back, and when a training is given up."""

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
    """A training of 1000 steps in which a step writes its number into every weight."""

    def __init__(self, every: int = 10, batch_size: int = 64, ghost_size: int = 8) -> None:
        recipe = tiny_recipe(batch_size=batch_size, ghost_size=ghost_size)
        self.state = TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision("fp32", CPU))
        self.schedule = PacedSchedule(StepPacer(1000), recipe, batch_size)
        self.messages: list[str] = []
        self.guard = RollbackGuard(self.state, self.schedule, recipe, every, self.messages.append)

    def go_to(self, step: int) -> None:
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


def test_the_last_state_kept_comes_back_and_the_rate_is_halved() -> None:
    training = Training(every=10)
    training.go_to(27)
    training.guard.recover(NonFiniteError("the loss became nan at a learning rate of 0.05", 27))
    assert (training.state.step, training.weight) == (20, 20.0)
    assert training.state.progress == pytest.approx(0.02)
    assert training.schedule.lr_factor == 0.5
    step_plan = training.schedule.next(0)
    assert step_plan and step_plan.progress == pytest.approx(0.021), "the schedule goes on from there"
    assert training.messages == [
        "the loss became nan at a learning rate of 0.05 at step 27: back to step 20 and on at 0.5 times "
        "the learning rate"
    ]


def test_before_anything_was_kept_it_is_the_beginning() -> None:
    training = Training()
    training.fill(0.0)
    training.guard = RollbackGuard(
        training.state, training.schedule, tiny_recipe(batch_size=64, ghost_size=8), 10, training.messages.append
    )
    training.go_to(7)
    training.guard.recover(NonFiniteError("the loss became nan", 7))
    assert (training.state.step, training.state.progress, training.weight) == (0, 0.0, 0.0)


def test_gradients_and_momentum_of_the_faulty_step_are_gone() -> None:
    training = Training()
    training.go_to(10)
    for group in training.state.optimizer.groups:
        for parameter, buffer in zip(group.parameters, group.buffers, strict=True):
            parameter.grad = torch.full_like(parameter, float("nan"))
            buffer.fill_(float("inf"))
    training.guard.recover(NonFiniteError("the weights are not finite numbers", 11))
    assert training.state.snapshot().is_finite()
    assert all(parameter.grad is None for parameter in training.state.model.parameters())


def test_a_state_that_holds_the_fault_already_is_skipped() -> None:
    training = Training(every=10)
    training.go_to(19)
    training.fill(float("nan"))
    training.state.advance(0.02)
    training.guard.snapshot_if_due()
    assert training.guard.latest.step == 20
    training.guard.recover(NonFiniteError("the loss became nan", 21))
    assert (training.state.step, training.weight) == (10, 10.0)
    assert "back to step 10 " in training.messages[0], "what is told is what was done"


def test_a_state_kept_after_the_faulty_step_is_skipped_even_if_its_numbers_are_finite() -> None:
    """The loss of a step is known some steps later where the device runs behind."""
    training = Training(every=10)
    training.go_to(22)
    training.guard.recover(NonFiniteError("the loss became inf", 20))
    assert training.state.step == 10


def test_the_same_fault_again_goes_back_again_and_slower() -> None:
    """Weights that diverge are finite for some steps: a state that led to two faults is left for the one before."""
    training = Training(every=10)
    training.go_to(15)
    back_to = []
    for round_number in range(1, MAX_ROLLBACKS + 1):
        training.guard.recover(NonFiniteError("the loss became nan", 16))
        back_to.append(training.state.step)
        assert training.schedule.lr_factor == 0.5**round_number
        training.go_to(15)
    assert back_to == [10, 0, 10, 0, 10, 0], "a state kept anew on the way is trusted once"
    expected = (
        "the loss became nan at step 16, and again after each of 6 rollbacks in a row, each at half the learning rate; "
        "lower the learning rate with --set max_lr=VALUE, or use --precision fp32"
    )
    with pytest.raises(TimeboxError, match=re.escape(expected)):
        training.guard.recover(NonFiniteError("the loss became nan", 16))


def test_the_oldest_state_is_kept_however_often_it_fails() -> None:
    training = Training(every=10)
    training.go_to(5)
    for _ in range(3):
        training.guard.recover(NonFiniteError("the loss became nan", 6))
        assert training.state.step == 0
        training.go_to(5)


def test_memory_that_ran_out_says_nothing_against_a_state() -> None:
    training = Training(every=10)
    training.go_to(15)
    training.guard.recover(OutOfMemoryError("no room"))
    training.guard.recover(NonFiniteError("the loss became nan", 16))
    assert training.state.step == 10


def test_faults_far_apart_are_not_a_row() -> None:
    training = Training(every=50)
    for number in range(1, 3 * MAX_ROLLBACKS):
        training.go_to(min(number * 50, 900))
        training.guard.recover(
            NonFiniteError("the loss became nan", number * (ROLLBACK_WINDOW_STEPS // MAX_ROLLBACKS + 1))
        )
    assert len(training.messages) == 3 * MAX_ROLLBACKS - 1


def test_faults_just_within_reach_of_each_other_are_a_row() -> None:
    training = Training()
    apart = ROLLBACK_WINDOW_STEPS // MAX_ROLLBACKS
    for number in range(MAX_ROLLBACKS):
        training.guard.recover(NonFiniteError("the loss became nan", 1 + number * apart))
    with pytest.raises(TimeboxError):
        training.guard.recover(NonFiniteError("the loss became nan", 1 + MAX_ROLLBACKS * apart))


def test_a_batch_that_does_not_fit_is_split_into_whole_groups() -> None:
    training = Training(batch_size=64, ghost_size=8)
    training.go_to(12)
    parts = []
    for _ in range(3):
        training.guard.recover(OutOfMemoryError("no room"))
        parts.append(training.schedule.micro_batch)
        assert (training.state.step, training.weight) == (10, 10.0)
    assert parts == [32, 16, 8]
    assert training.norm_sizes == {8}, "the arithmetic is the same"
    assert training.schedule.lr_factor == 1.0
    assert training.messages == [
        f"memory ran out: batches of 64 are computed in micro-batches of {part} images" for part in parts
    ]
    step_plan = training.schedule.next(0)
    assert step_plan and step_plan.micro_batch == 8


def test_below_a_single_group_the_norm_changes_and_that_is_said() -> None:
    training = Training(batch_size=64, ghost_size=32)
    parts = []
    for _ in range(4):
        training.guard.recover(OutOfMemoryError("no room"))
        parts.append((training.schedule.micro_batch, training.norm_sizes))
    assert parts == [(32, {32}), (16, {16}), (8, {8}), (4, {4})]
    assert training.messages[0] == "memory ran out: batches of 64 are computed in micro-batches of 32 images"
    assert training.messages[1:] == [
        f"memory ran out: batches of 64 are computed in micro-batches of {part} images, "
        f"each normalised by itself from now on"
        for part in (16, 8, 4)
    ]
    with pytest.raises(TimeboxError, match=r"^memory ran out with 4 images at a time; make the network smaller with"):
        training.guard.recover(OutOfMemoryError("no room"))


def test_a_norm_over_the_whole_batch_changes_at_the_first_split() -> None:
    training = Training(batch_size=50, ghost_size=0)
    training.guard.recover(OutOfMemoryError("no room"))
    assert (training.schedule.micro_batch, training.norm_sizes) == (25, {25})
    assert training.messages[0].endswith("each normalised by itself from now on")


def test_giving_up_names_the_cause() -> None:
    training = Training(batch_size=6, ghost_size=0)
    fault = OutOfMemoryError("no room")
    expected = "6 images at a time.*--set width=VALUE.*--set image_size=VALUE"
    with pytest.raises(TimeboxError, match=expected) as caught:
        training.guard.recover(fault)
    assert caught.value.__cause__ is fault


def too_large_for_torch() -> object:
    return torch.empty(1 << 56, dtype=torch.uint8)


def too_large_for_numpy() -> object:
    return np.empty(1 << 56, dtype=np.uint8)


def refused_by_a_gpu() -> object:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("allocate", [too_large_for_torch, too_large_for_numpy, refused_by_a_gpu])
def test_whoever_runs_out_of_memory_it_is_the_same_fault(allocate: Callable[[], object]) -> None:
    with pytest.raises(OutOfMemoryError) as caught, convert_memory_errors():
        allocate()
    assert isinstance(caught.value, RecoverableError)
    assert str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError | MemoryError)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("memory"), KeyboardInterrupt()]
)
def test_what_is_no_lack_of_memory_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, convert_memory_errors():
        raise error
    assert caught.value is error
