import numpy as np
import pytest

from timebox.pretrained.share import best_share, blend

LABELS = np.arange(40) % 2


def probabilities(right: float) -> np.ndarray:
    """Two classes, the right one with this probability."""
    columns = np.full((len(LABELS), 2), 1 - right, np.float32)
    columns[np.arange(len(LABELS)), LABELS] = right
    return columns


@pytest.mark.parametrize(("network", "pretrained", "share"), [(0.9, 0.6, 0.0), (0.6, 0.9, 1.0)])
def test_one_alone_where_it_is_better_everywhere(network: float, pretrained: float, share: float) -> None:
    assert best_share(probabilities(network), probabilities(pretrained), LABELS) == share


def test_both_where_each_knows_other_images() -> None:
    own, other = probabilities(0.95), probabilities(0.95)
    own[:10], other[10:20] = 0.5, 0.5
    assert 0.3 <= best_share(own, other, LABELS) <= 0.7


def test_sure_and_wrong_costs_no_infinite_likelihood() -> None:
    assert best_share(probabilities(0.0), probabilities(0.3), LABELS) == 1.0


def test_a_blend_sums_to_one() -> None:
    mixed = blend(probabilities(0.9), probabilities(0.2), 0.3)
    assert mixed.dtype == np.float32
    assert np.allclose(mixed.sum(1), 1, atol=1e-6)
    assert np.array_equal(blend(probabilities(0.9), probabilities(0.2), 0.0), probabilities(0.9))
