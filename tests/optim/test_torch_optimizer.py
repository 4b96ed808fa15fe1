"""AdamW of our own, and optimizers of torch.optim under the schedule."""

import pytest
import torch
from torch import nn

from own_networks import adam, lbfgs, nadam, sgd_with_groups
from timebox.errors import UsageError
from timebox.optim import Optimizer, adamw_group
from timebox.optim.torch_optimizer import TorchOptimizer

LRS = (0.1, 0.2, 0.05)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def set_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_adamw_is_that_of_torch() -> None:
    ours, theirs = network(), network()
    optimizer = Optimizer([adamw_group(list(ours.parameters()), 0.9, 0.1)], 1.0, 0.9)
    reference = torch.optim.AdamW(theirs.parameters(), lr=1.0, betas=(0.9, 0.999), weight_decay=0.1)
    for number, lr in enumerate(LRS):
        set_gradients(ours, number)
        set_gradients(theirs, number)
        optimizer.prepare(lr, 0.9, 0.5)
        optimizer.step()
        reference.param_groups[0]["lr"] = lr
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_a_parameter_without_a_gradient_stays() -> None:
    model = network()
    optimizer = Optimizer([adamw_group(list(model.parameters()), 0.9, 0.1)], 1.0, 0.9)
    before = model[0].weight.clone()
    set_gradients(model, 0)
    model[0].weight.grad = None
    optimizer.step()
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("make", [adam, sgd_with_groups, nadam])
def test_rates_are_the_optimizers_own_times_the_schedule(make) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = network(), network()
    optimizer, reference = TorchOptimizer(make(list(ours.parameters())), 1.0), make(list(theirs.parameters()))
    first = [group["lr"] for group in reference.param_groups]
    for number, factor in enumerate(LRS):
        set_gradients(ours, number)
        set_gradients(theirs, number)
        optimizer.prepare(factor, 0.9, 0.5)
        assert optimizer.group_lrs == pytest.approx([factor * lr for lr in first])
        optimizer.step()
        for group, lr in zip(reference.param_groups, first, strict=True):
            group["lr"] = factor * lr
        reference.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("make", [adam, sgd_with_groups])
def test_making_an_optimizer_changes_nothing(make) -> None:  # type: ignore[no-untyped-def]
    model, before = network(), network()
    optimizer = TorchOptimizer(make(list(model.parameters())), 1.0)
    for one, other in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other)
        assert one.grad is None
    values = [value for group in optimizer.groups for _, _, value in group.named_state()]
    assert values
    assert not any(value.any() for value in values)


def test_its_state_is_restored_in_place() -> None:
    model = network()
    optimizer = TorchOptimizer(adam(list(model.parameters())), 1.0)
    state = [value for group in optimizer.groups for _, _, value in group.named_state()]
    before = [value.clone() for value in (*state, *model.parameters())]
    results = []
    for _ in range(2):
        for value, saved in zip((*state, *model.parameters()), before, strict=True):
            with torch.no_grad():
                value.copy_(saved)
        for number in range(3):
            set_gradients(model, number)
            optimizer.step()
        results.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_others_are_refused() -> None:
    with pytest.raises(UsageError, match=r"must make a torch\.optim\.Optimizer, and made a list"):
        TorchOptimizer([], 1.0)
    with pytest.raises(UsageError, match="LBFGS needs a closure"):
        TorchOptimizer(lbfgs(list(network().parameters())), 1.0)
