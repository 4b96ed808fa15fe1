import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from timebox.pretrained import head as head_module
from timebox.pretrained.head import LinearHead, fit_head

HEADS = pytest.mark.parametrize("max_logistic", [0, 10**9], ids=["ridge", "logistic"])


@pytest.fixture
def kind(max_logistic: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "MAX_LOGISTIC", max_logistic)


def clusters(num: int, num_classes: int = 3, seed: int = 0, num_features: int = 20) -> tuple[Tensor, Tensor]:
    """Features around a centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_classes
    centres = 0.8 * torch.randn(num_classes, num_features, generator=torch.Generator().manual_seed(7))
    return centres[labels] + torch.randn(num, num_features, generator=generator), labels


def logits_of(head: LinearHead, features: Tensor) -> Tensor:
    return features @ head.weight.T + head.bias


@HEADS
@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("num_classes", [2, 3])
def test_new_images_are_predicted_as_well_as_it_says(num_classes: int) -> None:
    head = fit_head(*clusters(400, num_classes), num_classes)
    others, labels = clusters(4000, num_classes, seed=1)
    logits = logits_of(head, others)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    assert abs(accuracy - head.accuracy) < 0.05
    assert accuracy > 0.85
    # Its probabilities mean what they say.
    assert F.cross_entropy(logits, labels).item() < 0.02 + F.cross_entropy(1.5 * logits, labels).item()
    assert F.cross_entropy(logits, labels).item() < 0.02 + F.cross_entropy(logits / 1.5, labels).item()


def test_the_accuracy_of_ridge_regression_is_that_of_heads_fitted_to_all_other_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ridge, (features, labels) = 0.01, clusters(40)
    monkeypatch.setattr(head_module, "MAX_LOGISTIC", 0)
    monkeypatch.setattr(head_module, "RIDGES", (ridge,))
    inputs = (features - features.mean(0)) / (features.std(0) * features.shape[1] ** 0.5)
    targets, num_right = F.one_hot(labels, 3).float(), 0
    for left_out in range(len(features)):
        others = [k for k in range(len(features)) if k != left_out]
        mean, centre = inputs[others].mean(0), targets[others].mean(0)
        X, Y = inputs[others] - mean, targets[others] - centre  # noqa: N806
        weight = torch.linalg.solve(X.T @ X + ridge * len(features) * torch.eye(X.shape[1]), X.T @ Y)
        num_right += int(((inputs[left_out] - mean) @ weight + centre).argmax() == labels[left_out])
    assert fit_head(features, labels, 3).accuracy == pytest.approx(num_right / len(features))


@HEADS
@pytest.mark.usefixtures("kind")
def test_constant_features_and_classes_without_images_do_no_harm() -> None:
    features, labels = clusters(60)
    features[:, 3] = 1.0
    head = fit_head(features, labels, 5)
    assert head.weight.isfinite().all()
    assert head.bias.isfinite().all()
    assert head.accuracy > 0.7
    assert not torch.isin(logits_of(head, features).argmax(1), torch.tensor([3, 4])).any()


@HEADS
@pytest.mark.usefixtures("kind")
def test_a_class_that_comes_late_is_learnt() -> None:
    features, labels = clusters(80, 4)
    order = torch.cat([torch.nonzero(labels != 3)[:, 0], torch.nonzero(labels == 3)[:, 0]])
    head = fit_head(features[order], labels[order], 4)
    assert (logits_of(head, features).argmax(1) == labels)[labels == 3].float().mean() > 0.8


def test_so_few_images_that_a_part_of_them_has_one_class() -> None:
    features, _ = clusters(4)
    head = fit_head(features, torch.tensor([0, 0, 0, 1]), 2)
    assert head.weight.isfinite().all()


@HEADS
@pytest.mark.usefixtures("kind")
def test_it_is_the_same_every_time() -> None:
    one, other = (fit_head(*clusters(100), 3) for _ in range(2))
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    fit_head(*clusters(100), 3)
    assert torch.get_num_threads() == before
