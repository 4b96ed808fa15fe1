"""SGD with two rates: the groups, and a step against one written out by hand."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models import ResNet9
from timebox.optim import sgd


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def test_biases_have_a_group_of_their_own() -> None:
    model = ResNet9(3, 10, width=4)
    optimizer = sgd(model, lr=0.5, momentum=0.9, weight_decay=0.01, bias_lr_multiplier=64.0)
    weights, biases = optimizer.groups
    assert (weights.lr_multiplier, weights.weight_decay) == (1.0, 0.01)
    assert (biases.lr_multiplier, biases.weight_decay) == (64.0, 0.01 / 64)
    assert {id(p) for p in biases.parameters} == {id(p) for n, p in model.named_parameters() if n.endswith("bias")}
    grouped = [id(p) for group in optimizer.groups for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [group["params"] for group in optimizer.param_groups] == [weights.parameters, biases.parameters]


def test_a_model_without_biases_has_one_group() -> None:
    model = nn.Linear(3, 2, bias=False)
    assert len(sgd(model, lr=0.1, momentum=0.9, weight_decay=0.0, bias_lr_multiplier=2.0).groups) == 1


def test_making_one_imports_no_compiler() -> None:
    program = "import sys, torch; from timebox.optim import sgd; " + (
        "sgd(torch.nn.Linear(2, 2), lr=0.1, momentum=0.9, weight_decay=0.0, bias_lr_multiplier=1.0).step; "
        "raise SystemExit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("multiplier", [1.0, 8.0])
def test_steps_equal_nesterov_written_by_hand(multiplier: float) -> None:
    model, reference = small_model(), small_model()
    weight_decay = 0.05
    optimizer = sgd(model, lr=1.0, momentum=0.9, weight_decay=weight_decay, bias_lr_multiplier=multiplier)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    generator = torch.Generator().manual_seed(1)
    for lr, momentum in [(0.01, 0.95), (0.03, 0.85), (0.02, 0.9), (0.0, 0.95), (0.02, 0.95)]:
        x, y = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)

        def gradients(network: nn.Module, x: Tensor = x, y: Tensor = y) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                return torch.autograd.grad(F.cross_entropy(network(x), y), list(network.parameters()))

        optimizer.lr, optimizer.momentum = lr, momentum
        for p, gradient in zip(model.parameters(), gradients(model), strict=True):
            p.grad = gradient
        optimizer.step()
        with torch.no_grad():
            for p, gradient, v in zip(reference.parameters(), gradients(reference), velocity, strict=True):
                factor = multiplier if p.dim() == 1 else 1.0
                decayed = gradient + weight_decay / factor * p
                v.mul_(momentum).add_(decayed)
                p.sub_(factor * lr * (decayed + momentum * v))
    for p, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-7)


def test_the_shrinkage_per_step_is_the_same_for_both_groups() -> None:
    model = nn.Linear(4, 4)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = sgd(model, lr=0.1, momentum=0.9, weight_decay=0.1, bias_lr_multiplier=64.0)
    optimizer.lr, optimizer.momentum = 0.1, 0.9
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight[0], model.bias)
    assert float(model.bias[0].detach()) < 1


def test_it_converges_on_a_tiny_problem_and_repeats_bitwise() -> None:
    def fit() -> tuple[float, Tensor]:
        model = small_model()
        optimizer = sgd(model, lr=0.1, momentum=0.9, weight_decay=0.0, bias_lr_multiplier=2.0)
        optimizer.lr, optimizer.momentum = 0.1, 0.9
        x = torch.randn(30, 6, generator=torch.Generator().manual_seed(2))
        y = x[:, :3].argmax(1)
        for _ in range(150):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item(), torch.cat([p.detach().flatten() for p in model.parameters()])

    (loss, weights), (_, again) = fit(), fit()
    assert loss < 0.05
    assert torch.equal(weights, again)


@pytest.mark.parametrize("num_skipped", [1, 3])
def test_steps_skipped_for_an_overflow_leave_no_trace(num_skipped: int) -> None:
    """The optimizer's memory is none of the skipped steps', also where the very first one is skipped."""
    weights = []
    for skipped in (0, num_skipped):
        model = small_model()
        optimizer = sgd(model, lr=0.1, momentum=0.9, weight_decay=0.0, bias_lr_multiplier=2.0)
        optimizer.lr, optimizer.momentum = 0.1, 0.9
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, backoff_factor=0.5)
        for step in range(skipped + 3):
            loss = model(torch.ones(2, 6)).square().mean()
            scaler.scale(loss * (float("inf") if step < skipped else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])
