"""Mixed precision: losses close to float32, recovery from overflow, and the choice of the fastest format."""

import numpy as np
import pytest
import torch

from timebox.data.device.loader import Batch
from timebox.errors import UsageError
from timebox.models import ResNet9, ResNet9Config
from timebox.optim import Optimizer, sgd_group
from timebox.optim.loss import Loss
from timebox.runtime import precision as module
from timebox.runtime.precision import Precision, resolve_precision
from timebox.training.state import TrainingState
from timebox.training.step import training_step
from tiny import CPU, bands, tiny_recipe, tiny_training


def losses(name: str, num_steps: int = 100) -> np.ndarray:
    _, log = tiny_training(num_steps, precision=Precision(name, CPU))
    return np.array([entry["loss"] for entry in log], dtype=float)


@pytest.mark.integration
def test_losses_of_lower_precisions_are_close_to_float32_for_100_steps() -> None:
    """Within 0.02 on average and 0.15 at worst, on a loss that falls from 1.1 to about 0.3."""
    reference = losses("fp32")
    assert reference[:5].mean() > 1.0
    assert reference[-10:].mean() < 0.4
    for name in ("bf16", "fp16"):
        difference = np.abs(losses(name) - reference)
        assert difference.mean() < 0.02, (name, difference.mean())
        assert difference.max() < 0.15, (name, difference.max())
        assert difference.max() > 0, "the lower precision was not used"


def one_step(precision: Precision) -> tuple[ResNet9, dict[str, torch.Tensor]]:
    """Run one step. Returns the network and its weights before the step."""
    torch.manual_seed(0)
    model = ResNet9(3, 3, ResNet9Config(width=4, ghost_size=8)).train()
    data = bands(16)
    images = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = TrainingState(model, tiny_recipe(averaging_span=0.0), precision)
    state.optimizer = Optimizer([sgd_group([p for p in model.parameters() if p.requires_grad], 0.0)], 0.05, 0.9)
    training_step(state, Loss(0.0), Batch(images, torch.from_numpy(data.labels)), len(data))
    return model, before


def test_an_overflow_skips_the_step_and_halves_the_loss_scale() -> None:
    precision = Precision("fp16", CPU, initial_scale=2.0**40)
    model, before = one_step(precision)
    assert precision.loss_scale == 2.0**39
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_loss_scale_falls_until_steps_succeed() -> None:
    # The first steps are skipped, and must leave no trace in the optimizer's state.
    precision = Precision("fp16", CPU, initial_scale=2.0**24)
    trained, log = tiny_training(100, precision=precision)
    assert 2.0 <= precision.loss_scale < 2.0**24
    first, last = ([entry["loss"] for entry in part] for part in (log[:5], log[-5:]))
    assert np.mean(last) < np.mean(first) - 0.4  # type: ignore[arg-type]
    assert all(p.isfinite().all() for p in trained.model.parameters())


def test_the_loss_scale_doubles_after_200_good_steps() -> None:
    precision = Precision("fp16", CPU, initial_scale=4.0)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = Optimizer([sgd_group([parameter], 0.0)], 0.0, 0.9)
    for step in range(400):
        assert precision.loss_scale == (4.0 if step < 200 else 8.0)
        precision.backward(parameter.sum())
        precision.step(optimizer)
        optimizer.zero_grad()
    assert precision.loss_scale == 16.0


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_step_updates_float32_weights(name: str) -> None:
    model, before = one_step(Precision(name, CPU))
    moved = [not torch.equal(p, before[key]) for key, p in model.named_parameters() if p.requires_grad]
    assert all(moved)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_convolutions_run_in_the_lower_format(name: str, dtype: torch.dtype) -> None:
    conv = torch.nn.Conv2d(3, 4, 3)
    with Precision(name, CPU).autocast():
        assert conv(torch.zeros(2, 3, 8, 8)).dtype == dtype
    with Precision("fp32", CPU).autocast():
        assert conv(torch.zeros(2, 3, 8, 8)).dtype == torch.float32


def test_only_fp16_has_a_loss_scale() -> None:
    assert [Precision(name, CPU).loss_scale for name in ("fp32", "bf16", "fp16")] == [1.0, 1.0, 2.0**14]


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_named_precision_is_used(name: str) -> None:
    assert resolve_precision(name, CPU, None) == (name, "as asked")


def test_an_unknown_precision_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_precision("fp8", CPU, None)
    assert str(caught.value) == "precision 'fp8' is unknown; use auto, fp32, bf16, fp16"


@pytest.mark.parametrize(
    ("seconds", "selected", "why"),
    [
        ({"fp32": 1.0, "bf16": 0.5}, "bf16", "measured against fp32: bf16 2.0x"),
        ({"fp32": 1.0, "bf16": 12.0}, "fp32", "measured against fp32: bf16 0.1x"),
        ({"fp32": 1.0, "bf16": 0.95}, "fp32", "measured against fp32: bf16 1.1x"),
        ({"fp32": 1.0, "bf16": 1.0}, "fp32", "measured against fp32: bf16 1.0x"),
    ],
)
def test_auto_selects_the_fastest_precision(
    seconds: dict[str, float], selected: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: 1.0)
    assert resolve_precision("auto", CPU, seconds.__getitem__) == (selected, why)


def test_one_disturbed_reading_does_not_run_a_network_in_emulated_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One reading of the block overestimates the speed of bf16 three times; a second one does not."""
    block = {"fp32": [0.025, 0.009], "bf16": [0.07, 0.07]}
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: block[name].pop(0))
    measured: list[str] = []
    selected = resolve_precision("auto", CPU, lambda name: measured.append(name) or 1.0)
    assert selected == ("fp32", "measured against fp32: bf16 0.1x")
    assert measured == ["fp32"]
    assert block == {"fp32": [], "bf16": []}


def test_a_clear_result_of_the_block_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for bf16_seconds in (0.012, 0.07):
        block = {"fp32": [0.01], "bf16": [bf16_seconds]}
        monkeypatch.setattr(module, "_probe_seconds", lambda name, device, of=block: of[name].pop(0))
        resolve_precision("auto", CPU, {"fp32": 1.0, "bf16": 0.5}.__getitem__)
        assert block == {"fp32": [], "bf16": []}


def test_a_precision_far_too_slow_on_a_network_is_measured_there_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: 1.0)
    measured: list[str] = []
    seconds = {"fp32": 0.3, "bf16": 7.5}
    selected, why = resolve_precision("auto", CPU, lambda name: measured.append(name) or seconds[name])
    assert (selected, why) == ("fp32", "measured against fp32: bf16 0.0x")
    assert measured.count("bf16") == 1


def test_one_disturbed_reading_on_a_network_does_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A precision that seems too slow is measured up to three times more; a fast one is selected at once."""
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: 1.0)
    for slow in ([1.4], [1.4, 1.3], [1.4, 1.3, 0.95]):
        readings = {"fp32": [1.0, 1.1, 1.1, 1.1], "bf16": [*slow, 0.5]}
        assert resolve_precision("auto", CPU, lambda name, of=readings: of[name].pop(0)) == (
            "bf16",
            "measured against fp32: bf16 2.0x",
        )
    readings = {"fp32": [1.0] * 4, "bf16": [1.4] * 4}
    assert resolve_precision("auto", CPU, lambda name: readings[name].pop(0))[0] == "fp32"
    assert readings == {"fp32": [], "bf16": []}
    readings = {"fp32": [1.0], "bf16": [0.5]}
    assert resolve_precision("auto", CPU, lambda name: readings[name].pop(0))[0] == "bf16"


def test_a_precision_far_too_slow_on_the_block_is_not_measured_on_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: {"fp32": 1.0, "bf16": 12.0}[name])
    measured: list[str] = []
    assert resolve_precision("auto", CPU, lambda name: measured.append(name) or 1.0) == (
        "fp32",
        "measured against fp32: bf16 0.1x",
    )
    assert measured == ["fp32"]


@pytest.mark.parametrize(
    ("seconds", "selected", "why"),
    [
        ({"fp32": 1.0, "bf16": 0.5, "fp16": 0.4}, "bf16", "bf16 2.0x, fp16 2.5x"),
        ({"fp32": 1.0, "bf16": 2.0, "fp16": 0.4}, "fp16", "bf16 0.5x, fp16 2.5x"),
        ({"fp32": 1.0, "bf16": 1.0, "fp16": 1.0}, "fp32", "bf16 1.0x, fp16 1.0x"),
    ],
)
def test_on_a_gpu_the_block_decides_and_bf16_is_preferred_to_fp16(
    seconds: dict[str, float], selected: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: seconds[name])
    measured = resolve_precision("auto", torch.device("cuda"), lambda name: pytest.fail("a whole network measured"))
    assert measured == (selected, f"measured against fp32: {why}")


def test_auto_without_a_measurement_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_probe_seconds", lambda name, device: pytest.fail("measured"))
    assert resolve_precision("auto", CPU, None) == ("fp32", "fixed, as no time is measured")
    assert resolve_precision("auto", torch.device("cuda"), None)[0] == "bf16"


@pytest.mark.usefixtures("global_random_state_untouched")
def test_measuring_does_not_change_the_random_state() -> None:
    name, why = resolve_precision("auto", CPU, {"fp32": 1.0, "bf16": 0.5}.__getitem__)
    assert name in ("fp32", "bf16")
    assert why.startswith("measured against fp32: bf16 ")
