import numpy as np
import pytest

from timebox.models.pretrained import BlendWeights
from timebox.pretrained.share import best_weights, blend

LABELS = np.arange(200) % 2


def probabilities(right: float, sure: float = 0.9) -> np.ndarray:
    """Two classes; a share of the images is predicted right, all with the same certainty."""
    is_right = np.random.default_rng(int(1000 * right)).random(len(LABELS)) < right
    columns = np.full((len(LABELS), 2), 1 - sure, np.float32)
    columns[np.arange(len(LABELS)), np.where(is_right, LABELS, 1 - LABELS)] = sure
    return columns


def test_the_features_alone_where_the_network_knows_nothing() -> None:
    assert best_weights(probabilities(0.5, sure=0.51), probabilities(0.95), LABELS).share == 1


def test_the_network_alone_where_the_features_know_nothing() -> None:
    assert best_weights(probabilities(0.95), probabilities(0.5, sure=0.51), LABELS).share == 0


def test_both_where_each_knows_other_images() -> None:
    weights = best_weights(probabilities(0.85, sure=0.85), probabilities(0.86, sure=0.85), LABELS)
    assert 0.3 <= weights.share <= 0.7
    both = blend(probabilities(0.85, sure=0.85), probabilities(0.86, sure=0.85), weights)
    assert both.max(1).mean() > 0.5


def test_a_network_that_is_too_unsure_is_calibrated_first() -> None:
    assert best_weights(probabilities(0.95, sure=0.7), probabilities(0.9), LABELS).temperature < 0.6


def test_sure_and_wrong_costs_no_infinite_likelihood() -> None:
    assert best_weights(probabilities(0.0, sure=1.0), probabilities(0.9), LABELS).share > 0.5


@pytest.mark.parametrize("weights", [BlendWeights(0.3, 0.5), BlendWeights(1.0, 2.0), BlendWeights(0.0, 1.0)])
def test_a_blend_sums_to_one(weights: BlendWeights) -> None:
    mixed = blend(probabilities(0.9), probabilities(0.2, sure=1.0), weights)
    assert mixed.dtype == np.float32
    assert np.allclose(mixed.sum(1), 1, atol=1e-6)


def test_one_alone_is_itself() -> None:
    own, other = probabilities(0.9), probabilities(0.2)
    assert np.allclose(blend(own, other, BlendWeights(0.0, 1.0)), own, atol=1e-6)
    assert np.allclose(blend(own, other, BlendWeights(1.0, 0.5)), other, atol=1e-6)
