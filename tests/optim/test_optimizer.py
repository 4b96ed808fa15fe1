"""Parameter groups: learning rate multipliers, weight decay and freezing."""

import pytest
import torch
from torch import nn

from timebox.optim import Optimizer, sgd_group


def with_gradient(value: float = 1.0) -> nn.Parameter:
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.full((1,), value)
    return parameter


def test_each_group_has_its_multiple_of_the_learning_rate() -> None:
    slow, fast = with_gradient(), with_gradient()
    optimizer = Optimizer([sgd_group([slow], 0.0), sgd_group([fast], 0.0, 8.0)], 0.1, 0.5)
    optimizer.step()
    # Nesterov's first step from rest is the gradient and its share of momentum.
    assert slow.item() == pytest.approx(-0.15)
    assert fast.item() == pytest.approx(-1.2)


def test_weight_decay_is_divided_by_the_multiplier() -> None:
    assert sgd_group([torch.zeros(1)], 0.01, 64.0).weight_decay == 0.01 / 64


def test_grad_scaler_finds_every_parameter() -> None:
    parameters = [torch.zeros(1), torch.zeros(2)]
    optimizer = Optimizer([sgd_group([p], 0.0) for p in parameters], 0.1, 0.5)
    assert [group["params"] for group in optimizer.param_groups] == [[p] for p in parameters]


def test_the_learning_rate_of_a_group_falls_until_it_is_frozen() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = Optimizer([sgd_group([parameter], 0.0, freeze_at=0.5)], 0.1, 0.5)
    steps = []
    for progress in (0.0, 0.25, 0.5, 0.75):
        optimizer.groups[0].buffers[0].zero_()
        optimizer.prepare(0.1, 0.5, progress)
        before = parameter.item()
        if parameter.requires_grad:
            parameter.grad = torch.ones(1)
        optimizer.step()
        optimizer.zero_grad()
        steps.append(before - parameter.item())
    assert steps == pytest.approx([0.15, 0.075, 0.0, 0.0])


def test_frozen_groups_need_no_gradient_and_thaw_after_a_rollback() -> None:
    early, late = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = Optimizer([sgd_group([early], 0.0, freeze_at=0.375), sgd_group([late], 0.0)], 0.1, 0.5)
    for progress, learns in ((0.1, True), (0.374, True), (0.375, False), (1.0, False), (0.2, True)):
        optimizer.prepare(0.1, 0.5, progress)
        assert (early.requires_grad, late.requires_grad) == (learns, True)


def test_groups_frozen_from_the_start_never_change() -> None:
    parameter = nn.Parameter(torch.ones(1))
    optimizer = Optimizer([sgd_group([parameter], 0.1, freeze_at=0.0)], 0.1, 0.5)
    optimizer.prepare(0.1, 0.5, 0.0)
    optimizer.step()
    assert not parameter.requires_grad
    assert parameter.item() == 1.0
