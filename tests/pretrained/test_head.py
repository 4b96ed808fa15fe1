import pytest
import torch
from torch.nn import functional as F

from timebox.pretrained import head as head_module
from timebox.pretrained.head import fit_head


def clusters(
    num: int, num_classes: int = 3, num_features: int = 20, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features around a centre for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % num_classes
    centres = 0.8 * torch.randn(num_classes, num_features, generator=torch.Generator().manual_seed(7))
    return centres[labels] + torch.randn(num, num_features, generator=generator), labels


@pytest.mark.parametrize("num_classes", [2, 3])
def test_predictions_of_images_left_out_are_those_of_heads_fitted_to_the_others(
    num_classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ridge = 0.01
    monkeypatch.setattr(head_module, "RIDGES", (ridge,))
    monkeypatch.setattr(head_module, "LOGIT_SCALES", (1.0,))
    features, labels = clusters(30, num_classes)
    inputs = (features - features.mean(0)) / (features.std(0) * features.shape[1] ** 0.5)
    targets = F.one_hot(labels, num_classes).float()
    scores = []
    for left_out in range(len(features)):
        others = [k for k in range(len(features)) if k != left_out]
        mean, centre = inputs[others].mean(0), targets[others].mean(0)
        X, Y = inputs[others] - mean, targets[others] - centre  # noqa: N806
        # The closed form keeps the scatter of the means that leaving an image out moves.
        weight = torch.linalg.solve(X.T @ X + ridge * len(features) * torch.eye(X.shape[1]), X.T @ Y)
        scores.append((inputs[left_out] - mean) @ weight + centre)
    expected = torch.stack(scores).softmax(1)
    assert torch.allclose(fit_head(features, labels, num_classes).probabilities, expected, atol=1e-4)


def test_new_images_are_predicted_as_well_as_those_left_out() -> None:
    features, labels = clusters(300)
    head = fit_head(features, labels, 3)
    others, other_labels = clusters(3000, seed=1)
    accuracy = ((others @ head.weight.T + head.bias).argmax(1) == other_labels).float().mean().item()
    assert abs(accuracy - head.accuracy) < 0.03
    likelihood = F.cross_entropy(others @ head.weight.T + head.bias, other_labels).item()
    assert abs(likelihood - F.nll_loss(head.probabilities.log(), labels).item()) < 0.1


def test_constant_features_and_a_class_without_images_do_no_harm() -> None:
    features, labels = clusters(60)
    features[:, 3] = 1.0
    head = fit_head(features, labels, 5)
    assert head.weight.isfinite().all()
    assert head.bias.isfinite().all()
    assert head.accuracy > 0.8
    assert not torch.isin((features @ head.weight.T + head.bias).argmax(1), torch.tensor([3, 4])).any()


def test_it_is_the_same_every_time() -> None:
    features, labels = clusters(100)
    one, other = fit_head(features, labels, 3), fit_head(features, labels, 3)
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)
