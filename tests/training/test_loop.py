"""The training loop: log, validation, rollbacks and reporting."""

import re
from collections.abc import Callable
from itertools import count
from math import inf, nan

import pytest
import torch
from torch import nn

from timebox.clock import Deadline
from timebox.errors import TimeboxError
from timebox.progress import StepStatus
from timebox.runtime.precision import Precision
from timebox.training import step as steps
from timebox.training.loop import train_model
from timebox.training.pacer import ClockPacer
from timebox.training.rollback import MAX_ROLLBACKS
from timebox.training.schedule import lr_and_momentum_at
from timebox.training.state import TrainingState
from timebox.training.step import EagerStepRunner
from tiny import CPU, tiny_recipe, tiny_training


def weights(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


class RecordingReporter:
    """Keeps the status of each step."""

    def __init__(self) -> None:
        self.steps: list[StepStatus] = []

    def phase(self, name: str) -> None:
        raise AssertionError("the loop reports no phase")

    def note(self, text: str) -> None:
        raise AssertionError("the loop reports no note")

    def step(self, status: StepStatus) -> None:
        torch.rand(3)  # a reporter may draw random numbers
        self.steps.append(status)


def test_the_log_has_every_step_once_and_in_order() -> None:
    recipe = tiny_recipe()
    trained, log = tiny_training(20, recipe=recipe)
    assert [entry["step"] for entry in log] == list(range(1, 21))
    for number, entry in enumerate(log, 1):
        assert list(entry) == ["step", "epoch", "resolution", "progress", "lr", "momentum", "micro_batch", "loss"]
        assert entry["progress"] == pytest.approx(number / 20)
        assert entry["epoch"] == pytest.approx(number * 16 / 100)
        assert (entry["lr"], entry["momentum"]) == lr_and_momentum_at(recipe, number / 20)
        assert isinstance(entry["loss"], float)
    assert (trained.num_steps, trained.epochs, trained.final_lr) == (20, 3.2, 0.0)
    assert trained.images_per_second > 0


def test_learning_rate_and_momentum_follow_the_recipe() -> None:
    recipe = tiny_recipe(max_lr=2.0, peak_at=0.4, down_at=0.85)
    assert lr_and_momentum_at(recipe, 0.0) == pytest.approx((0.2, 0.95))
    assert lr_and_momentum_at(recipe, 0.4) == pytest.approx((2.0, 0.85))
    assert lr_and_momentum_at(recipe, 0.85) == pytest.approx((0.2, 0.95))
    assert lr_and_momentum_at(recipe, 1.0) == (0.0, 0.95)


def test_the_logged_rates_are_those_of_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[tuple[float, float]] = []
    original: Callable[..., torch.Tensor] = steps.training_step

    def spy(state: TrainingState, *rest: object) -> torch.Tensor:
        used.append((state.optimizer.lr, state.optimizer.momentum))
        return original(state, *rest)

    monkeypatch.setattr(steps, "training_step", spy)
    _, log = tiny_training(8)
    assert used == [(entry["lr"], entry["momentum"]) for entry in log]


def test_the_loss_falls() -> None:
    _, log = tiny_training(80)
    losses = [entry["loss"] for entry in log]
    assert all(isinstance(loss, float) for loss in losses)
    assert max(losses[:3]) > 1.0  # type: ignore[type-var,operator]
    assert max(losses[-5:]) < 0.6  # type: ignore[type-var,operator]


def test_equal_seeds_give_equal_weights_byte_for_byte() -> None:
    (first, log), (second, again) = tiny_training(12), tiny_training(12)
    assert weights(first.model) == weights(second.model)
    assert log == again


def test_validation_changes_no_weights_and_is_logged() -> None:
    seen: list[nn.Module] = []

    def validate(model: nn.Module) -> float:
        seen.append(model)
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, 8, 8))
        return 0.25 * len(seen)

    plain, _ = tiny_training(20)
    validated, log = tiny_training(20, validate=validate, validate_at=[0.2, 0.4, 0.6])
    assert weights(validated.model) == weights(plain.model)
    assert [entry for entry in log if "val_accuracy" in entry] == [
        {"step": 4, "progress": pytest.approx(0.2), "val_accuracy": 0.25},
        {"step": 8, "progress": pytest.approx(0.4), "val_accuracy": 0.5},
        {"step": 12, "progress": pytest.approx(0.6), "val_accuracy": 0.75},
    ]
    assert [entry["step"] for entry in log if "loss" in entry] == list(range(1, 21))
    assert all(model is validated.model for model in seen), "the averaged model is what is validated"


def test_several_validation_points_within_one_step_are_validated_once() -> None:
    calls: list[int] = []
    _, log = tiny_training(2, validate=lambda model: calls.append(1) or 0.5, validate_at=[0.1, 0.2, 0.3, 0.9])  # type: ignore[func-returns-value]
    assert [entry["step"] for entry in log if "val_accuracy" in entry] == [1, 2]
    assert len(calls) == 2


@pytest.mark.parametrize("span", [0.0, 0.15])
def test_validation_leaves_batch_normalisation_in_training_mode(span: float) -> None:
    modes: list[bool] = []
    recipe = tiny_recipe(averaging_span=span)

    def validate(model: nn.Module) -> float:
        modes.append(model.training)
        return 0.0

    plain, _ = tiny_training(10, recipe=recipe)
    validated, _ = tiny_training(10, recipe=recipe, validate=validate, validate_at=[0.5])
    assert weights(plain.model) == weights(validated.model)
    assert modes == [span == 0.0]


def test_a_reporter_changes_no_weights() -> None:
    recorder = RecordingReporter()
    silent, log = tiny_training(12)
    reported, again = tiny_training(12, reporter=recorder)
    assert weights(silent.model) == weights(reported.model)
    assert log == again
    assert [status.step for status in recorder.steps] == list(range(1, 13))
    assert {status.total_steps for status in recorder.steps} == {12}
    assert {status.seconds_left for status in recorder.steps} == {None}
    assert [status.loss for status in recorder.steps] == [entry["loss"] for entry in log]
    assert recorder.steps[-1].progress == 1.0


def patch_losses(monkeypatch: pytest.MonkeyPatch, values: Callable[[int], float]) -> None:
    """Replace steps by ones without training, with a loss for each number of calls before."""
    numbers = count()
    monkeypatch.setattr(steps, "training_step", lambda *rest: torch.tensor(values(next(numbers))))


def test_a_nan_loss_causes_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_losses(monkeypatch, lambda number: nan if number == 7 else 1.0)
    trained, log = tiny_training(12, recipe=tiny_recipe(policy="constant", max_lr=0.2))
    logged = [entry for entry in log if "loss" in entry]
    assert [entry["step"] for entry in logged] == [*range(1, 9), *range(6, 13)], "a snapshot is taken every 5 steps"
    assert [entry["lr"] for entry in logged] == [0.2] * 8 + [0.1] * 7
    assert log[8] == {"step": 5, "rolled_back": True}
    assert trained.num_steps == 12


def test_nan_losses_after_every_rollback_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_losses(monkeypatch, lambda number: 1.0 if number < 2 else nan)
    with pytest.raises(TimeboxError) as caught:
        tiny_training(20, recipe=tiny_recipe(policy="constant", max_lr=0.64))
    assert str(caught.value).startswith("the loss became nan at a learning rate of 0.01 at step 1, and again after")


@pytest.mark.parametrize(("max_lr", "bias_lr_multiplier"), [(8, 300), (16, 64), (100, 1000)])
def test_a_diverging_training_recovers_at_lower_learning_rates_or_ends(
    max_lr: float, bias_lr_multiplier: float
) -> None:
    """Which of the two depends on rounding, thus on the processor. A result is always finite."""
    recipe = tiny_recipe(max_lr=max_lr, policy="constant", logit_scale=10, bias_lr_multiplier=bias_lr_multiplier)
    try:
        trained, log = tiny_training(60, recipe=recipe)
    except TimeboxError as error:
        halved = max_lr / 2**MAX_ROLLBACKS
        assert re.match(rf"the loss became (nan|inf) at a learning rate of {halved:.3g} at step \d+, and ", str(error))
    else:
        assert any("rolled_back" in entry for entry in log)
        assert trained.num_steps == 60
        assert all(bool(tensor.isfinite().all()) for tensor in trained.model.state_dict().values())


def test_an_infinite_loss_in_fp16_causes_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_losses(monkeypatch, lambda number: inf if number == 6 else 1.0)
    _, log = tiny_training(12, precision=Precision("fp16", CPU))
    assert log[7] == {"step": 5, "rolled_back": True}


def test_an_infinite_loss_of_the_last_step_causes_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    patch_losses(monkeypatch, lambda number: inf if number == 1 else 1.0)
    _, log = tiny_training(2)
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 1, 2]


def test_nan_weights_after_the_last_step_cause_a_rollback(monkeypatch: pytest.MonkeyPatch) -> None:
    original: Callable[..., torch.Tensor] = steps.training_step
    numbers = count()

    def poisoned(state: TrainingState, *rest: object) -> torch.Tensor:
        loss = original(state, *rest)
        if next(numbers) == 7:
            with torch.no_grad():
                next(iter(state.model.parameters())).fill_(nan)
        return loss

    monkeypatch.setattr(steps, "training_step", poisoned)
    trained, log = tiny_training(8)
    assert {"step": 5, "rolled_back": True} in log
    assert all(bool(tensor.isfinite().all()) for tensor in trained.model.state_dict().values())


def test_with_a_deadline_the_schedule_ends_in_time_and_phases_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = [0.0]
    deadline = Deadline(20.0, now=lambda: moment[0])
    original: Callable[..., torch.Tensor] = steps.training_step

    def half_a_second(*rest: object) -> torch.Tensor:
        moment[0] += 0.5
        return original(*rest)

    def validate(model: nn.Module) -> float:
        moment[0] += 1.0
        return 0.5

    monkeypatch.setattr(steps, "training_step", half_a_second)
    recorder = RecordingReporter()
    pacer = ClockPacer(lambda: deadline.remaining() - 2.0, 0.5, deadline.elapsed)
    with deadline.phase("training"):
        trained, log = tiny_training(
            pacer=pacer, deadline=deadline, validate=validate, validate_at=[0.25, 0.5, 0.75], reporter=recorder
        )
    logged = [entry for entry in log if "loss" in entry]
    assert len(logged) == 30
    assert logged[-1]["progress"] == 1.0
    assert trained.final_lr == 0.0
    assert trained.images_per_second == 30 * 16 / 15.0
    assert deadline.phases_so_far() == {"start-up": 0.0, "training": 15.0, "validating": 3.0, "other": 0.0}
    assert deadline.elapsed() == 18.0
    assert recorder.steps[0].seconds_left == 19.5
    assert recorder.steps[0].total_steps == 36
    assert recorder.steps[-1].total_steps == 30


@pytest.mark.parametrize("calls", [1, 30])
def test_a_training_ends_where_time_runs_out_in_a_step(calls: int) -> None:
    readings = count()

    def seconds_left() -> float:
        return 1.0 if next(readings) < calls else -1.0

    aborted, log = tiny_training(12, make_step_runner=lambda state, loss: EagerStepRunner(state, loss, seconds_left))
    whole, expected = tiny_training(12)
    assert (aborted.is_aborted, whole.is_aborted) == (True, False)
    assert 1 <= aborted.num_steps < 12
    assert log == [*expected[: aborted.num_steps], {"step": aborted.num_steps, "aborted": True}]
    assert aborted.final_lr == expected[aborted.num_steps - 1]["lr"]


def test_the_loop_fits_on_a_screen() -> None:
    assert train_model.__code__.co_firstlineno
    lines = {line for *_, line in train_model.__code__.co_lines() if line}
    assert max(lines) - min(lines) < 60
