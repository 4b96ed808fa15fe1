"""SGD: steps compared with Nesterov momentum written by hand, convergence and skipped steps."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.optim import Optimizer, sgd_group


def sgd(model: nn.Module, weight_decay: float, bias_lr_multiplier: float) -> Optimizer:
    """Weights in one group, biases in another."""
    weights, biases = ([p for p in model.parameters() if p.dim() == d] for d in (2, 1))
    return Optimizer([sgd_group(weights, weight_decay), sgd_group(biases, weight_decay, bias_lr_multiplier)], 0.1, 0.9)


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.mark.integration
def test_an_optimizer_does_not_import_torchs_compiler() -> None:
    program = "import sys, torch; from timebox.optim import Optimizer, muon_group, sgd_group; " + (
        "Optimizer([sgd_group([torch.zeros(2)], 0.0), muon_group([torch.zeros(2, 2, 3, 3)], 1.0, 0.6, torch.float32)], "
        "0.1, 0.9).step; "
        "raise SystemExit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("multiplier", [1.0, 8.0])
def test_steps_equal_nesterov_written_by_hand(multiplier: float) -> None:
    model, reference = small_model(), small_model()
    weight_decay = 0.05
    optimizer = sgd(model, weight_decay, multiplier)
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    generator = torch.Generator().manual_seed(1)
    for lr, momentum in [(0.01, 0.95), (0.03, 0.85), (0.02, 0.9), (0.0, 0.95), (0.02, 0.95)]:
        x, y = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)

        def gradients(network: nn.Module, x: Tensor = x, y: Tensor = y) -> tuple[Tensor, ...]:
            with torch.enable_grad():
                return torch.autograd.grad(F.cross_entropy(network(x), y), list(network.parameters()))

        optimizer.prepare(lr, momentum, 0.5)
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


def test_weight_decay_shrinks_both_groups_by_the_same_factor() -> None:
    model = nn.Linear(4, 4)
    nn.init.ones_(model.weight)
    nn.init.ones_(model.bias)
    optimizer = sgd(model, 0.1, 64.0)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight[0], model.bias)
    assert float(model.bias[0].detach()) < 1


def test_sgd_converges_and_repeats_bitwise() -> None:
    def fit() -> tuple[float, Tensor]:
        model = small_model()
        optimizer = sgd(model, 0.0, 2.0)
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
def test_steps_skipped_for_an_overflow_change_nothing(num_skipped: int) -> None:
    """The momentum buffers do not change either, also if the first step is skipped."""
    weights = []
    for skipped in (0, num_skipped):
        model = small_model()
        optimizer = sgd(model, 0.0, 2.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, backoff_factor=0.5)
        for step in range(skipped + 3):
            loss = model(torch.ones(2, 6)).square().mean()
            scaler.scale(loss * (float("inf") if step < skipped else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])
