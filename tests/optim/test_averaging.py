"""Weight averaging compared with its closed form."""

import math

import pytest
import torch
from torch import nn

from timebox.optim import WeightAverage


class Scalar(nn.Module):
    """One weight, one floating-point buffer, one counter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.register_buffer("statistic", torch.tensor([value], dtype=torch.float64))
        self.register_buffer("count", torch.tensor(7))

    def set(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)
            self.statistic.fill_(value)


def test_constant_advances_follow_the_closed_form() -> None:
    model = Scalar(5.0)
    average = WeightAverage(model, span=0.2)
    num_steps, weight = 50, 0.02 / 0.2
    values = [math.sin(step) for step in range(num_steps)]
    for value in values:
        model.set(value)
        average.update(0.02)
    expected = 5.0 * (1 - weight) ** num_steps + sum(
        weight * (1 - weight) ** (num_steps - 1 - step) * value for step, value in enumerate(values)
    )
    assert average.model.weight.item() == pytest.approx(expected, rel=1e-12)
    assert average.model.statistic.item() == pytest.approx(expected, rel=1e-12)


def test_the_average_spans_the_same_share_of_a_schedule_of_any_length() -> None:
    def remembered(num_steps: int) -> float:
        """Weight of the first value after half of a schedule at another value."""
        model = Scalar(1.0)
        average = WeightAverage(model, span=0.25)
        model.set(0.0)
        for _ in range(num_steps // 2):
            average.update(1 / num_steps)
        return average.model.weight.item()

    assert remembered(4000) == pytest.approx(math.exp(-2), rel=0.01)
    assert remembered(400) == pytest.approx(math.exp(-2), rel=0.05)


def test_an_advance_longer_than_the_span_copies_the_current_weights() -> None:
    model = Scalar(1.0)
    average = WeightAverage(model, span=0.1)
    model.set(3.0)
    average.update(0.7)
    assert average.model.weight.item() == 3.0


def test_span_zero_is_the_model_itself() -> None:
    model = Scalar(1.0)
    average = WeightAverage(model, span=0.0)
    assert average.model is model
    model.set(2.0)
    average.update(0.5)
    assert model.weight.item() == 2.0


def test_the_average_is_a_copy_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = WeightAverage(model, span=0.5)
    assert not average.model.training
    assert model.training
    model(torch.randn(4, 3, 8, 8))
    with torch.no_grad():
        model[0].weight.add_(1)
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average.update(0.25)
    for name, averaged in average.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], after[name]), "the model trained on must stay as it is"
        if averaged.is_floating_point():
            torch.testing.assert_close(averaged, (before[name] + after[name]) / 2)
    assert not torch.equal(after["1.running_mean"], before["1.running_mean"])


def test_no_gradient_flows_into_the_average() -> None:
    model = Scalar(1.0)
    average = WeightAverage(model, span=0.5)
    average.update(0.1)
    assert all(p.grad is None and p.grad_fn is None for p in average.model.parameters())
