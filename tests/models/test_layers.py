"""The layers: ghost batch norm against batch norm, whitening against the covariance it removes."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timebox.models.layers import (
    MAX_BIAS,
    ConvBlock,
    GhostBatchNorm,
    MaxBlurPool,
    Residual,
    Whitening,
    start_at_identity,
)


def images(num: int, channels: int = 5, side: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(num, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def plain(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


@pytest.mark.parametrize(
    ("num", "sizes"), [(12, [4, 4, 4]), (10, [4, 4, 2]), (9, [4, 5]), (5, [5]), (4, [4]), (3, [3])]
)
def test_ghost_norm_is_batch_norm_on_each_group(num: int, sizes: list[int]) -> None:
    x = images(num)
    ghost, reference = GhostBatchNorm(5, ghost_size=4), plain(5)
    expected = torch.cat([reference(group) for group in x.split(sizes)])
    assert torch.equal(ghost(x), expected)
    assert torch.equal(ghost.running_mean, reference.running_mean)
    assert torch.equal(ghost.running_var, reference.running_var)
    assert ghost.num_batches_tracked == len(sizes)


def test_ghost_size_zero_takes_the_whole_batch() -> None:
    x = images(12)
    assert torch.equal(GhostBatchNorm(5)(x), plain(5)(x))


def test_in_evaluation_ghost_norm_is_batch_norm() -> None:
    x = images(12)
    ghost, reference = GhostBatchNorm(5, ghost_size=4), plain(5)
    ghost(x)
    reference.load_state_dict(ghost.state_dict())
    assert torch.equal(ghost.eval()(x), reference.eval()(x))
    assert torch.equal(ghost(x)[:1], ghost(x[:1]))


def test_the_weight_is_frozen_and_the_bias_is_trained() -> None:
    ghost = GhostBatchNorm(5, ghost_size=4)
    ghost(images(8)).square().sum().backward()
    assert torch.equal(ghost.weight, torch.ones(5))
    assert not ghost.weight.requires_grad
    assert ghost.bias.grad is not None


def test_statistics_stay_float32_under_autocast() -> None:
    ghost = GhostBatchNorm(5, ghost_size=4)
    x = images(8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ghost(x)
    assert ghost.running_mean is not None
    assert ghost.running_mean.dtype == torch.float32
    assert torch.allclose(
        ghost.running_mean, 0.1 * x[4:].float().mean((0, 2, 3)) + 0.09 * x[:4].float().mean((0, 2, 3))
    )


def test_whitening_gives_patches_identity_covariance() -> None:
    # Smooth, strongly correlated images of large variance, against which the epsilon of the filters is nothing.
    smooth = F.avg_pool2d(images(200, channels=3, side=16), 3, stride=1)
    data = (smooth + smooth.mean(1, keepdim=True)) * 30
    layer = Whitening(3)
    layer.fit(data)
    inner = layer(data)[:, :, 1:-1, 1:-1]
    outputs = inner.permute(1, 0, 2, 3).flatten(1)
    assert torch.allclose(torch.cov(outputs), torch.eye(27), atol=0.02)


def test_whitening_does_not_amplify_directions_without_variance() -> None:
    flat = torch.full((50, 3, 8, 8), 0.5)
    layer = Whitening(3)
    layer.fit(flat)
    assert layer.weight.isfinite().all()
    assert float(layer.weight.abs().max()) <= 10.0001


def test_directions_without_variance_have_no_filter() -> None:
    """Grey images with three channels vary in four of twelve directions: their four filters are there three times."""
    grey = F.avg_pool2d(images(200, channels=1, side=16), 3, stride=1)
    layer, of_grey = Whitening(3, 2), Whitening(1, 2)
    layer.fit(grey.expand(-1, 3, -1, -1))
    of_grey.fit(grey)
    rank = of_grey.num_filters
    assert torch.equal(layer.weight[:rank], layer.weight[rank : 2 * rank])
    assert torch.equal(layer.weight[:rank], layer.weight[2 * rank :])
    assert torch.linalg.matrix_rank(layer.weight[:rank].flatten(1)) == rank


def test_the_bias_that_is_added_is_bounded() -> None:
    layer = Whitening(1, bias=True)
    assert layer.bias is not None and layer.bounded_bias is not None
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-1000, 1000, len(layer.bias)))
        assert float(layer.bounded_bias.abs().max()) == MAX_BIAS
        assert torch.equal(layer(torch.zeros(1, 1, 4, 4))[0, :, 1, 1], layer.bounded_bias)
    assert Whitening(1).bounded_bias is None


def test_filters_are_sorted_by_decreasing_variance() -> None:
    layer = Whitening(1)
    layer.fit(F.avg_pool2d(images(200, channels=1, side=16), 3, stride=1))
    norms = layer.weight.flatten(1).norm(dim=1)
    assert (norms[1:] >= norms[:-1]).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whitening_is_fixed_and_saved(channels: int) -> None:
    layer = Whitening(channels)
    assert list(layer.parameters()) == []
    assert layer.state_dict()["weight"].shape == (9 * channels, channels, 3, 3)
    data = images(20, channels, side=8)
    layer.fit(data)
    other = Whitening(channels)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(data), layer(data))
    assert layer(data).shape == (20, 9 * channels, 8, 8)


def test_fitting_twice_gives_the_same_filters() -> None:
    data = images(50, 3, side=8)
    first, second = Whitening(3), Whitening(3)
    first.fit(data)
    second.fit(images(50, 3, side=8, seed=1))
    second.fit(data)
    assert torch.equal(first.weight, second.weight)


def test_the_block_pools_before_it_normalises() -> None:
    kinds = [type(layer) for layer in ConvBlock(3, 8, pool=True)]
    assert kinds == [nn.Conv2d, nn.MaxPool2d, GhostBatchNorm, nn.CELU]
    assert [type(layer) for layer in ConvBlock(3, 8)] == [nn.Conv2d, GhostBatchNorm, nn.CELU]


def test_a_residual_block_adds_its_input() -> None:
    x = images(3)
    double = nn.Conv2d(5, 5, 1, bias=False)
    assert torch.equal(Residual(double, nn.ReLU())(x), x + F.relu(double(x)))


def test_signed_whitening_has_negative_filters_and_a_trained_bias() -> None:
    layer = Whitening(3, 2, padding=0, epsilon=5e-4, signed=True, bias=True)
    layer.fit(images(200, channels=3, side=8))
    assert layer.num_filters == 24
    assert torch.equal(layer.weight[12:], -layer.weight[:12])
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert layer(images(5, channels=3, side=8)).shape == (5, 24, 7, 7)


def test_identity_initialisation_passes_inputs_on() -> None:
    torch.manual_seed(0)
    wider, narrower = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 3, 3, padding=1, bias=False)
    others = wider.weight[3:].clone(), nn.Conv2d(3, 3, 1).weight
    pointwise = nn.Conv2d(3, 3, 1)
    kept = pointwise.weight.clone()
    start_at_identity(nn.Sequential(wider, narrower, pointwise))
    x = images(2, channels=3, side=8)
    assert torch.equal(wider(x)[:, :3], x)
    assert torch.equal(wider.weight[3:], others[0])
    assert torch.equal(narrower(wider(x)), x)
    assert torch.equal(pointwise.weight, kept)


@pytest.mark.parametrize("size", [(2, 2), (2, 3), (5, 7), (6, 6), (9, 4)])
def test_blurpool_is_the_mean_of_overlapping_maxima(size: tuple[int, int]) -> None:
    x = images(2, side=9)[:, :, : size[0], : size[1]]
    pooled = MaxBlurPool()(x)
    assert pooled.shape == nn.MaxPool2d(2)(x).shape
    for row in range(pooled.shape[2]):
        for column in range(pooled.shape[3]):
            windows = [
                x[:, :, top : top + 2, left : left + 2].amax((2, 3))
                for top in (2 * row, 2 * row + 1)
                for left in (2 * column, 2 * column + 1)
                if top + 1 < size[0] and left + 1 < size[1]
            ]
            torch.testing.assert_close(pooled[:, :, row, column], torch.stack(windows).mean(0))


def test_blurpool_changes_less_under_a_shift_of_the_image() -> None:
    x = images(20, side=17, seed=3)
    moved = {}
    for pool in (MaxBlurPool(), nn.MaxPool2d(2)):
        here, there = pool(x[..., :16]), pool(x[..., 1:])
        moved[type(pool)] = (here - there).square().mean() / here.var()
    assert moved[MaxBlurPool] < 0.75 * moved[nn.MaxPool2d]
