from math import inf

import numpy as np
import pytest
import torch

from timebox.models.efficientnet_lite import FROZEN_BLOCKS
from timebox.models.pretrained import PretrainedClassifier
from timebox.pretrained import fine_tuning
from timebox.pretrained.features import PIXELS_OF_BATCH, FeatureExtractor, features_of
from timebox.pretrained.fine_tuning import FineTuning
from timebox.pretrained.fitting import calibrate, probabilities_of

CPU = torch.device("cpu")


def classifier() -> PretrainedClassifier:
    torch.manual_seed(0)
    return PretrainedClassifier(2, 32).eval()


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Activations (N, 1, 1, 192) of two classes, and labels."""
    return activations_of_two_classes((1, 1, 192))


def activations_of_two_classes(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(64) % 2
    activations = torch.randn(64, *shape, generator=torch.Generator().manual_seed(0)) + labels[:, None, None, None]
    return activations, labels


@pytest.mark.parametrize(
    ("num_frozen", "shape", "dtype"),
    [
        (15, (1, 1, 192), torch.float32),
        (11, (2, 2, 112), torch.float32),
        (15, (1, 1, 192), torch.bfloat16),  # a minute with four more blocks, without the processor's own bf16
    ],
)
def test_the_last_blocks_and_the_head_learn_and_all_else_stays(
    num_frozen: int, shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    activations, labels = activations_of_two_classes(shape)
    tuned, before = classifier(), classifier().state_dict()
    FineTuning(num_frozen, epochs=16, seed=0).run(tuned, activations.to(dtype), labels)
    right = probabilities_of(tuned, activations.to(dtype), num_frozen).argmax(1) == labels.numpy()
    assert right.mean() > 0.9
    changed = {name for name, value in tuned.state_dict().items() if not torch.equal(value, before[name])}
    blocks = [f"backbone.blocks.{block}" for block in range(num_frozen, 16)]
    layers = [*(f"{block}.{name}" for block in blocks for name in ("expand", "depthwise", "project")), "backbone.last"]
    assert changed == {f"{layer}.{kind}" for layer in (*layers, "head") for kind in ("weight", "bias")}
    assert all(value.dtype == torch.float32 for value in tuned.state_dict().values())
    assert not any(parameter.requires_grad for parameter in tuned.parameters())


def test_a_seed_repeats_it(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    heads = []
    for seed in (0, 0, 1):
        tuned = classifier()
        FineTuning(15, epochs=2, seed=seed).run(tuned, *data)
        heads.append(tuned.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_it_ends_in_time_with_a_learning_rate_of_zero(
    data: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, rates = iter(range(1000)), list[float]()
    monkeypatch.setattr(fine_tuning, "now", lambda: float(next(seconds)))
    monkeypatch.setattr(
        FineTuning, "_step", lambda self, model, optimizer, *rest: rates.append(optimizer.param_groups[0]["lr"])
    )
    FineTuning(15, epochs=100, seed=0, seconds=20.0).run(classifier(), *data)
    assert len(rates) == 19
    assert rates[-1] < 0.1 * max(rates)
    rates.clear()
    FineTuning(15, epochs=2, seed=0, seconds=inf).run(classifier(), *data)
    assert len(rates) == 4


def test_no_time_is_left(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    tuned = classifier()
    FineTuning(15, epochs=2, seed=0, seconds=-1.0).run(tuned, *data)
    assert torch.equal(tuned.head.weight, classifier().head.weight)


def test_its_speed_is_measured_on_a_copy() -> None:
    measured = classifier()
    assert all(0 < FineTuning(number, 1, 0).seconds_per_image(measured, "fp32") < 1 for number in FROZEN_BLOCKS)
    assert all(torch.equal(value, classifier().state_dict()[name]) for name, value in measured.state_dict().items())


@pytest.mark.parametrize(("num_frozen", "shape"), [(15, (1, 2, 192)), (13, (1, 2, 192)), (11, (2, 3, 112))])
def test_activations_lead_to_the_features_of_the_classifier(
    num_frozen: int, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PIXELS_OF_BATCH, "fp32", 16 * 32**2)
    model, images = classifier(), np.random.default_rng(0).integers(0, 255, (40, 24, 32, 3), np.uint8)
    extractor = FeatureExtractor(model, CPU, images, is_timed=False)
    extractor.use(32, num_frozen)
    activations = extractor.activations(images)
    assert activations.shape == (40, *shape)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    model.accept_normalized(torch.zeros(3), torch.ones(3))
    assert torch.allclose(features_of(model.backbone, activations, num_frozen, CPU), model.features(pixels), atol=1e-4)
    assert len(extractor.activations(images, lambda: True)) == 16


def test_a_classifier_that_is_too_unsure_is_calibrated(data: tuple[torch.Tensor, torch.Tensor]) -> None:
    model = classifier()
    FineTuning(15, epochs=16, seed=0).run(model, *data)
    unsure = probabilities_of(model, data[0], 15)
    calibrate(model, unsure, data[1].numpy())
    sure = probabilities_of(model, data[0], 15)
    assert np.array_equal(sure.argmax(1), unsure.argmax(1))
    assert sure.max(1).mean() > unsure.max(1).mean()
