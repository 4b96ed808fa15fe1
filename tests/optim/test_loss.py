import numpy as np
import pytest
import torch
from torch.nn import functional as F

from timebox.optim.loss import Loss, class_weights

LOGITS, LABELS = torch.randn(60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3


def test_without_weights_it_is_cross_entropy():
    assert torch.equal(Loss(0.1)(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, label_smoothing=0.1))


def test_weights_of_one_change_nothing_and_others_count():
    assert torch.allclose(Loss(0.1, torch.ones(3))(LOGITS, LABELS), Loss(0.1)(LOGITS, LABELS))
    only = Loss(0.0, torch.tensor([3.0, 0.0, 0.0]))(LOGITS, LABELS)
    assert torch.allclose(only, F.cross_entropy(LOGITS[::3], LABELS[::3]))


@pytest.mark.parametrize("weights", [None, torch.tensor([2.0, 1.0, 0.5])])
def test_an_image_of_one_class_counts_alike_however_it_is_told(weights):
    loss = Loss(0.1, weights)
    assert torch.allclose(loss(LOGITS, F.one_hot(LABELS).float()), loss(LOGITS, LABELS))


def test_a_mixed_image_counts_for_each_of_its_classes():
    loss, others = Loss(0.1), LABELS.roll(1)
    mixed = 0.75 * F.one_hot(LABELS).float() + 0.25 * F.one_hot(others).float()
    assert torch.allclose(loss(LOGITS, mixed), 0.75 * loss(LOGITS, LABELS) + 0.25 * loss(LOGITS, others))
    weighted = Loss(0.0, torch.tensor([3.0, 0.0, 0.0]))
    halves = torch.tensor([[0.5, 0.5, 0.0]]).expand(60, 3)
    assert torch.allclose(weighted(LOGITS, halves), 1.5 * Loss(0.0)(LOGITS, halves))


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
