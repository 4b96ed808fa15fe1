"""A classifier of pretrained weights: activations, a linear head and fine-tuning, within a share of a budget."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.evaluation.calibration import fit_temperature
from timebox.models.efficientnet_lite import FROZEN_BLOCKS
from timebox.models.pretrained import PretrainedClassifier
from timebox.pretrained.feature_plan import (
    MAX_VAL_IMAGES,
    NOT_TUNED,
    SMALLEST_SIDE,
    FeatureCosts,
    FeaturePlan,
    NotAffordableError,
    max_images,
    plan_features,
)
from timebox.pretrained.features import FeatureExtractor, features_of
from timebox.pretrained.fine_tuning import FineTuning
from timebox.pretrained.head import MAX_LOGISTIC, fit_head
from timebox.pretrained.interpolation import best_share
from timebox.pretrained.weights import PretrainedWeights

# Share of the time left that all of it may take as planned; and the shares at which no more activations are computed,
# and at which fine-tuning ends.
TIME_SHARE, MAX_ACTIVATIONS_SHARE, MAX_TIME_SHARE = 0.5, 0.5, 0.6
# Seconds that the largest logistic regression takes on two cores.
HEAD_SECONDS = 4.0
# Images of a class that a head is fitted to, at least; numbers of its fit's targets, at most.
MIN_IMAGES_PER_CLASS, MAX_TARGETS = 4, 50_000_000


@dataclass(frozen=True, eq=False)
class FittingData:
    """The images that a classifier is fitted to, and those that it predicts.

    Attributes:
        train: the training images.
        order: int64 (N,), of the training images, in which every prefix has the classes in their proportions.
        held_out: the splits that are scored, in the order of scoring.
        seed: of fine-tuning.
    """

    train: ImageDataset
    order: NDArray[np.int64]
    held_out: Mapping[str, ImageDataset]
    seed: int


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier that is fitted to images, and what it says.

    Attributes:
        plan: of its features and fine-tuning.
        num_images: that it was fitted to.
        head_accuracy: share of training images that a linear head on the published features gets right, 0...1, fitted
            to others.
        tuned_share: of the fine-tuned weights in the mix with the published ones, 0...1.
        probabilities: float32 (N, num_classes), of the first N images of the held-out splits, by name.
    """

    classifier: PretrainedClassifier
    plan: FeaturePlan
    num_images: int
    head_accuracy: float
    tuned_share: float
    probabilities: Mapping[str, NDArray[np.float32]]


def fit_pretrained(
    weights: PretrainedWeights, data: FittingData, deadline: Deadline, device: torch.device, is_tuned: bool = True
) -> FittedClassifier:
    """Fit a linear head to the features of the training images, fine-tune, and predict the held-out images.

    Args:
        is_tuned: whether the last blocks are fine-tuned.
    Raises:
        NotAffordableError: where the budget leaves no time for it.
    """
    classifier = PretrainedClassifier(data.train.num_classes, SMALLEST_SIDE).eval()
    classifier.backbone.load_state_dict(weights.read())
    classifier.to(device)
    extractor = FeatureExtractor(classifier, device, data.train.images, deadline.budget_seconds is not None)
    started, left = deadline.elapsed(), deadline.remaining()
    plan = _plan(data, classifier, extractor, TIME_SHARE * left, is_tuned)
    classifier.side = plan.side
    extractor.use(plan.side, plan.num_frozen)
    held_out, activations = _activations(data, extractor, plan, deadline, started + MAX_ACTIVATIONS_SHARE * left)
    labels = torch.from_numpy(data.train.labels[data.order[: len(activations)]])
    head = fit_head(
        features_of(classifier.backbone, activations, plan.num_frozen, device), labels, data.train.num_classes
    )
    with torch.no_grad():
        classifier.head.weight.copy_(head.weight)
        classifier.head.bias.copy_(head.bias)
    tuned_share = 0.0
    if plan.epochs:
        published = {name: value.clone() for name, value in classifier.state_dict().items()}
        seconds = started + MAX_TIME_SHARE * left - deadline.elapsed()
        FineTuning(plan.num_frozen, plan.epochs, data.seed, seconds).run(classifier, activations, labels)
        tuned_share = _mix(classifier, published, held_out.get("val"), data, plan)
    if "val" in held_out:
        uncalibrated = probabilities_of(classifier, held_out["val"], plan.num_frozen)
        calibrate(classifier, uncalibrated, data.held_out["val"].labels)
    probabilities = {name: probabilities_of(classifier, split, plan.num_frozen) for name, split in held_out.items()}
    return FittedClassifier(classifier, plan, len(activations), head.accuracy, tuned_share, probabilities)


def _mix(
    classifier: PretrainedClassifier,
    published: Mapping[str, Tensor],
    val: Tensor | None,
    data: FittingData,
    plan: FeaturePlan,
) -> float:
    """Mix the fine-tuned weights with the published ones as val tells, and return the share of the fine-tuned ones."""
    activations = torch.empty(0) if val is None else val
    labels = data.held_out["val"].labels[: len(activations)] if "val" in data.held_out else np.empty(0, np.int64)
    return best_share(
        classifier,
        published,
        lambda number: probabilities_of(classifier, activations[:number], plan.num_frozen),
        labels,
    )


def predict_held_out(
    classifier: PretrainedClassifier, held_out: Mapping[str, ImageDataset], deadline: Deadline
) -> dict[str, NDArray[np.float32]]:
    """The classifier's probabilities, float32 (N, num_classes), of the first images of each split: as many as it comes
    to in a share of the time left, one batch at least."""
    until, probabilities = deadline.elapsed() + TIME_SHARE * deadline.remaining(), {}
    for name, split in held_out.items():
        device, is_timed = classifier.head.weight.device, deadline.budget_seconds is not None
        extractor = FeatureExtractor(classifier, device, split.images, is_timed)
        images = split.images[: MAX_VAL_IMAGES if name == "val" else max_images(len(held_out))]
        activations = extractor.activations(images, lambda: deadline.elapsed() > until)
        probabilities[name] = probabilities_of(classifier, activations, NOT_TUNED)
    return probabilities


def probabilities_of(classifier: PretrainedClassifier, activations: Tensor, num_frozen: int) -> NDArray[np.float32]:
    """The classifier's probabilities, float32 (N, num_classes), of images with these activations."""
    weight, bias = classifier.head.weight, classifier.head.bias
    features = features_of(classifier.backbone, activations, num_frozen, weight.device)
    probabilities: NDArray[np.float32] = (features @ weight.detach().cpu().T + bias.detach().cpu()).softmax(1).numpy()
    return probabilities


def calibrate(classifier: PretrainedClassifier, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Divide the classifier's logits by the temperature that makes validation images most likely: label smoothing makes
    it less sure than it is right."""
    temperature = fit_temperature(probabilities, labels[: len(probabilities)])
    with torch.no_grad():
        classifier.head.weight.div_(temperature)
        classifier.head.bias.div_(temperature)


def _plan(
    data: FittingData, classifier: PretrainedClassifier, extractor: FeatureExtractor, seconds: float, is_tuned: bool
) -> FeaturePlan:
    """Side, images and epochs that there is time for in so many seconds."""
    num_classes, num_train = data.train.num_classes, len(data.train)
    most, least = MAX_TARGETS // num_classes, min(num_train, MIN_IMAGES_PER_CLASS * num_classes)
    if most < least:
        num_classes = MAX_TARGETS // MIN_IMAGES_PER_CLASS
        raise NotAffordableError(f"a head on pretrained features is fitted to {num_classes:,} classes at most")
    wanted = {"train": min(num_train, most)} | {name: len(split) for name, split in data.held_out.items()}
    if not extractor.is_timed:
        return plan_features(wanted, least, FeatureCosts(0.0, {}), None, is_tuned)
    epoch_seconds = {
        num_frozen: FineTuning(num_frozen, 1, data.seed).seconds_per_image(classifier, extractor.precision)
        for num_frozen in (FROZEN_BLOCKS if is_tuned else ())
    }
    costs = FeatureCosts(extractor.seconds_per_image, epoch_seconds)
    head_seconds = HEAD_SECONDS * min(1.0, wanted["train"] * num_classes / MAX_LOGISTIC)
    return plan_features(wanted, least, costs, seconds - head_seconds, is_tuned)


def _activations(
    data: FittingData, extractor: FeatureExtractor, plan: FeaturePlan, deadline: Deadline, until: float
) -> tuple[dict[str, Tensor], Tensor]:
    """Activations of the held-out splits, and of training images, as many as are computed until so many seconds."""

    def is_over() -> bool:
        return deadline.elapsed() > until

    numbers = plan.num_images
    held_out = {
        name: extractor.activations(split.images[: numbers[name]], is_over) for name, split in data.held_out.items()
    }
    if is_over() or any(len(activations) < numbers[name] for name, activations in held_out.items()):
        raise NotAffordableError(
            "pretrained features took much longer than measured, as beside other programs they may"
        )
    return held_out, extractor.activations(data.train.images[data.order[: numbers["train"]]], is_over)
