"""A pretrained classifier that is fitted within a share of a budget; its weights are random here."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from timebox.clock import Deadline
from timebox.data import ImageDataset, stratified_order
from timebox.models.efficientnet_lite import EfficientNetLite0
from timebox.pretrained import fitting
from timebox.pretrained.feature_plan import BACKBONE_SIDES, NOT_TUNED, NotAffordableError
from timebox.pretrained.fitting import FittedClassifier, FittingData, fit_pretrained
from timebox.pretrained.weights import EFFICIENTNET_LITE0, PretrainedWeights

CPU = torch.device("cpu")


def split_of(num_images: int) -> ImageDataset:
    """Dark and bright images of 8 px."""
    labels = np.arange(num_images) % 2
    noise = np.random.default_rng(num_images).integers(0, 100, (num_images, 8, 8, 3))
    return ImageDataset(
        (noise + 150 * labels[:, None, None, None]).astype(np.uint8),
        labels,
        ("dark", "bright"),
        np.arange(num_images).astype(str),
    )


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> PretrainedWeights:
    torch.manual_seed(0)
    state = EfficientNetLite0().state_dict()
    monkeypatch.setattr(PretrainedWeights, "read", lambda self: state)
    monkeypatch.setattr("timebox.pretrained.feature_plan.MAX_EPOCHS", 2)
    return EFFICIENTNET_LITE0


def data_with(**held_out: ImageDataset) -> FittingData:
    train = split_of(32)
    return FittingData(train, stratified_order(train.labels, 0), held_out, seed=0)


def test_held_out_images_are_predicted(weights: PretrainedWeights) -> None:
    data = data_with(val=split_of(24), test=split_of(30))
    fitted = fit_pretrained(weights, data, Deadline(None), CPU)
    assert {name: values.shape for name, values in fitted.probabilities.items()} == {"val": (24, 2), "test": (30, 2)}
    assert (fitted.plan.side, fitted.num_images, fitted.plan.epochs) == (min(BACKBONE_SIDES), 32, 2)
    assert np.isfinite(fitted.val_loss)
    fitted.classifier.accept_normalized(torch.zeros(3), torch.ones(3))
    for name, split in data.held_out.items():
        pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        assert fitted.classifier(pixels).softmax(1).numpy() == pytest.approx(fitted.probabilities[name], abs=1e-4)


def test_without_validation_images(weights: PretrainedWeights) -> None:
    fitted = fit_pretrained(weights, data_with(), Deadline(None), CPU)
    assert (fitted.val_loss, fitted.tuned_share, fitted.probabilities) == (float("inf"), 0.75, {})


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[FittedClassifier]:
    """Fine-tuning loses on the validation images; all classifiers that are fitted."""
    fitted, fit = list[FittedClassifier](), fitting._Fitting.fit

    def record(self: fitting._Fitting, *arguments: object) -> FittedClassifier:
        fitted.append(fit(self, *arguments))  # type: ignore[arg-type]
        return fitted[-1]

    monkeypatch.setattr(fitting, "BACKBONE_SIDES", (160, 128))
    monkeypatch.setattr("timebox.pretrained.feature_plan.BACKBONE_SIDES", (128,))
    monkeypatch.setattr(fitting, "best_share", lambda *rest: 0.0)
    monkeypatch.setattr(fitting._Fitting, "fit", record)
    return fitted


@pytest.mark.parametrize("choose", [min, max])
def test_where_fine_tuning_loses_larger_images_are_tried(
    choose: Callable[..., float],
    weights: PretrainedWeights,
    fits: list[FittedClassifier],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter((1.0, choose(0.5, 2.0)))
    monkeypatch.setattr(fitting, "calibrate", lambda *rest: next(losses))
    chosen = fit_pretrained(weights, data_with(val=split_of(24)), Deadline(300.0), CPU)
    tuned, larger = fits
    assert tuned.plan.epochs == 2
    assert larger.plan == replace(tuned.plan, side=160, num_frozen=NOT_TUNED, epochs=0)
    assert chosen is (larger if choose is min else tuned)


def test_larger_images_that_take_too_long_cost_nothing(
    weights: PretrainedWeights, fits: list[FittedClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    activations = fitting._Fitting._activations

    def stalled(self: fitting._Fitting, plan: fitting.FeaturePlan, share: float) -> object:
        if plan.epochs == 0:
            raise NotAffordableError("slow")
        return activations(self, plan, share)

    monkeypatch.setattr(fitting._Fitting, "_activations", stalled)
    assert fit_pretrained(weights, data_with(val=split_of(24)), Deadline(300.0), CPU) is fits[0]


def test_without_a_clock_no_larger_images_are_tried(weights: PretrainedWeights, fits: list[FittedClassifier]) -> None:
    fit_pretrained(weights, data_with(val=split_of(24)), Deadline(None), CPU)
    assert len(fits) == 1
