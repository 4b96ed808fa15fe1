import numpy as np
import pytest
import torch
from torch.nn import functional as F

from timebox.engine.loss import Loss, class_weights

LOGITS, LABELS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


def test_without_weights_it_is_cross_entropy():
    assert torch.equal(Loss(0.1)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_weights_of_one_change_nothing_and_others_count():
    assert torch.allclose(Loss(0.1, torch.ones(3))(LOGITS, LABELS), Loss(0.1)(LOGITS, LABELS))
    only = Loss(0.0, torch.tensor([3.0, 0.0, 0.0]))(LOGITS, LABELS)
    assert torch.allclose(only, F.cross_entropy(LOGITS[::3], LABELS[::3]))


@pytest.mark.parametrize("balance", [0.5, 1.0])
def test_rare_classes_count_for_more(balance):
    counts = np.array([160, 40, 10, 0])
    weights = class_weights(counts, balance).numpy()
    assert (weights * counts).sum() == pytest.approx(counts.sum())
    assert weights[2] / weights[0] == pytest.approx(16**balance)
    assert np.isfinite(weights).all()


def test_where_all_count_alike_there_are_none():
    assert class_weights(np.array([160, 10]), 0.0) is None
    assert class_weights(np.array([20, 20, 0, 20]), 1.0) is None
