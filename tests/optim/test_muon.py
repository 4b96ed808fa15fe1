"""Muon: Newton-Schulz against a singular value decomposition, and steps against Muon written by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from timebox.optim import Optimizer, muon_group, orthogonalize


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def bank(*shape: int, seed: int = 0) -> nn.Parameter:
    parameter = nn.Parameter(random(*shape, seed=seed).to(memory_format=torch.channels_last))
    parameter.grad = random(*shape, seed=seed + 100).to(memory_format=torch.channels_last)
    return parameter


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (40, 40)])
def test_more_iterations_converge_to_the_orthogonal_factor(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalize(matrix)
    assert result.shape == matrix.shape
    values = torch.linalg.svdvals(result)
    if shape[0] != shape[1]:  # a square one has values next to nothing, which three rounds do not lift
        assert 0.5 < values.min() < values.max() < 1.5
    # The directions stay as they are.
    aligned = left.T @ result @ right.T
    assert (aligned - aligned.diagonal().diag()).abs().max() < 1e-4


def test_bf16_suffices() -> None:
    matrix = random(32, 288)
    exact, rough = orthogonalize(matrix), orthogonalize(matrix.bfloat16()).float()
    assert (exact - rough).norm() < 0.15 * exact.norm()


def test_a_batch_of_matrices_equals_single_matrices() -> None:
    matrices = random(3, 8, 36)
    together = orthogonalize(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalize(matrix), result)


def test_two_steps_equal_muon_written_by_hand() -> None:
    shapes = ((8, 4, 3, 3), (6, 4, 3, 3), (8, 4, 3, 3))
    banks = [bank(*shape, seed=i) for i, shape in enumerate(shapes)]
    expected = [p.detach().clone() for p in banks]
    velocity = [torch.zeros_like(p) for p in banks]
    optimizer = Optimizer([muon_group(list(banks), 2.0, 0.6, torch.float32)], 0.1, 0.9)
    for step in range(2):
        gradients = [random(*shape, seed=10 * step + i) for i, shape in enumerate(shapes)]
        for p, gradient in zip(banks, gradients, strict=True):
            p.grad = gradient.clone(memory_format=torch.channels_last)
        optimizer.step()
        for p, gradient, v in zip(expected, gradients, velocity, strict=True):
            v.mul_(0.6).add_(gradient)
            update = orthogonalize((gradient + 0.6 * v).flatten(1)).view_as(p)
            p.mul_(len(p) ** 0.5 / p.norm()).sub_(0.2 * update)
    for p, q in zip(banks, expected, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_a_step_moves_the_weights_whatever_their_memory_format(memory_format: torch.memory_format) -> None:
    moved = []
    for form in (torch.channels_last, memory_format):
        p = nn.Parameter(random(4, 3, 3, 3).to(memory_format=form))
        p.grad = random(4, 3, 3, 3, seed=1)
        Optimizer([muon_group([p], 1.0, 0.6, torch.float32)], 0.1, 0.9).step()
        moved.append(p.detach())
    torch.testing.assert_close(moved[0], moved[1])
    assert not torch.allclose(moved[0], random(4, 3, 3, 3))


def test_the_relative_change_of_a_step_is_the_learning_rate() -> None:
    p = bank(16, 8, 3, 3)
    before = p.detach() * 16**0.5 / p.detach().norm()
    Optimizer([muon_group([p], 1.0, 0.6, torch.float32)], 0.1, 0.9).step()
    assert 0.05 < (p.detach() - before).norm() / before.norm() < 0.15


def test_muon_converges_and_repeats_bitwise() -> None:
    def fit() -> tuple[float, Tensor]:
        torch.manual_seed(0)
        images, labels = random(48, 2, 6, 6), torch.arange(48) % 3
        images[torch.arange(48), 0, labels] += 3.0
        network = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), nn.GELU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        head = nn.Linear(8, 3)
        optimizer = Optimizer([muon_group([network[0].weight], 1.0, 0.6, torch.float32)], 0.05, 0.9)
        for _ in range(60):
            loss = nn.functional.cross_entropy(head(network(images)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return loss.item(), network[0].weight.detach().flatten()

    (loss, weights), (_, again) = fit(), fit()
    assert loss < 0.8
    assert torch.equal(weights, again)


def test_flops_per_step_count_the_matrix_products() -> None:
    group = muon_group([bank(16, 8, 3, 3), bank(16, 8, 3, 3, seed=1), bank(24, 2, 3, 3)], 1.0, 0.6, torch.float32)
    optimizer = Optimizer([group], lr=0.1, momentum=0.9)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert optimizer.flops_per_step == counter.get_total_flops() > 0


@pytest.mark.parametrize("num_skipped", [1, 3])
def test_steps_skipped_for_an_overflow_change_nothing(num_skipped: int) -> None:
    weights = []
    for skipped in (0, num_skipped):
        p = bank(4, 3, 3, 3)
        p.grad = None
        optimizer = Optimizer([muon_group([p], 1.0, 0.6, torch.float32)], 0.1, 0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, backoff_factor=0.5)
        for step in range(skipped + 3):
            loss = (p * random(4, 3, 3, 3, seed=7)).square().mean()
            scaler.scale(loss * (float("inf") if step < skipped else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        weights.append(p.detach())
    torch.testing.assert_close(weights[0], weights[1])


class Recording:
    """A process of a group whose sums contain its own tensor only."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.sent = torch.empty(0)

    def all_reduce_sum_(self, tensor: Tensor) -> None:
        self.sent = tensor.clone()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_sharded_orthogonalisation_equals_that_of_one_process(size: int) -> None:
    shapes = [(8, 3, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3)]
    group = muon_group([bank(*shape, seed=i) for i, shape in enumerate(shapes)], 1.0, 0.6, torch.float32)
    banks = [random(*shape, seed=50 + i) for i, shape in enumerate(shapes)]
    alone = torch.cat([matrix.flatten() for matrix in group.orthogonalize_filters(banks)])
    sent = []
    for rank in range(size):
        group.shard_group = Recording(rank, size)
        group.orthogonalize_filters(banks)
        sent.append(group.shard_group.sent)
    assert torch.equal(sum(sent, torch.zeros(())), alone)
    held = torch.stack([part != 0 for part in sent]).sum(0)
    assert held.max() == 1, "nothing is computed twice"
    if size == 2:
        assert max(int((part != 0).sum()) for part in sent) < 0.7 * len(alone)
