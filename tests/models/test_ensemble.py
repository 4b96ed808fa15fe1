"""The ensemble: mean probabilities, its networks, whitening and operations."""

import torch
from torch import nn

from timebox.models import Airbench, AirbenchConfig, Ensemble, count_flops, fit_whitening, networks_of
from timebox.models.layers import Whitening


def networks(num: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [Airbench(3, 5, AirbenchConfig(width=4, logit_scale=10.0)).train() for _ in range(num)]


def test_the_softmax_is_the_mean_of_the_networks() -> None:
    members, images = networks(3), torch.randn(20, 3, 16, 16)
    expected = torch.stack([member(images).softmax(1) for member in members]).mean(0)
    ensemble = Ensemble(members)
    assert torch.allclose(ensemble(images).softmax(1), expected, atol=1e-6)
    assert not torch.allclose(expected, members[0](images).softmax(1), atol=1e-2), "members differ"


def test_the_output_is_float32_and_finite_for_probabilities_of_zero() -> None:
    class Sure(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[1000.0, 0.0]], dtype=torch.bfloat16).expand(len(images), 2)

    answer = Ensemble([Sure(), Sure()])(torch.zeros(2, 3, 8, 8))
    assert answer.dtype == torch.float32
    assert torch.equal(answer.softmax(1), torch.tensor([[1.0, 0.0]] * 2))


def test_float64_is_kept() -> None:
    members, images = [network.double() for network in networks(2)], torch.randn(20, 3, 16, 16).double()
    expected = torch.stack([member(images).softmax(1) for member in members]).mean(0)
    answer = Ensemble(members)(images)
    assert answer.dtype == torch.float64
    assert torch.allclose(answer.softmax(1), expected, rtol=1e-12)


def test_networks_of_an_ensemble_and_of_a_single_network() -> None:
    members = networks(2)
    assert networks_of(Ensemble(members)) == members
    assert networks_of(members[0]) == members[:1]


def test_all_networks_have_the_whitening_of_a_single_network() -> None:
    images = torch.randn(50, 3, 16, 16)
    alone, members = networks(1)[0], networks(3)
    fit_whitening(alone, images)
    fit_whitening(Ensemble(members), images)
    weights = [m.weight for network in (alone, *members) for m in network.modules() if isinstance(m, Whitening)]
    assert len(weights) == 4
    assert all(torch.equal(weight, weights[0]) for weight in weights)


def test_flops_are_counted_for_every_network() -> None:
    members = networks(3)
    assert count_flops(Ensemble(members), (3, 16, 16)) == 3 * count_flops(members[0], (3, 16, 16))
