"""A classifier of pretrained weights: activations, a linear head and fine-tuning, within a share of a budget."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.evaluation.calibration import apply_temperature, fit_temperature
from timebox.models.efficientnet_lite import FROZEN_BLOCKS
from timebox.models.pretrained import PretrainedClassifier
from timebox.pretrained.feature_plan import (
    BACKBONE_SIDES,
    MAX_VAL_IMAGES,
    NOT_TUNED,
    SMALLEST_SIDE,
    FeatureCosts,
    FeaturePlan,
    NotAffordableError,
    max_bytes,
    max_images,
    plan_features,
)
from timebox.pretrained.features import FeatureExtractor, features_of
from timebox.pretrained.fine_tuning import FineTuning
from timebox.pretrained.head import MAX_LOGISTIC, fit_head
from timebox.pretrained.interpolation import best_share, mean_loss
from timebox.pretrained.weights import PretrainedWeights

# Seconds that are kept for the network, whatever the budget: beside other programs its plan and scores take long.
RESERVED_SECONDS = 6.0
# Share of the time left that all of it may take as planned; the share at which fine-tuning ends, and how much earlier
# no more activations are computed.
TIME_SHARE, MAX_TIME_SHARE, SHARE_AFTER_ACTIVATIONS = 0.5, 0.6, 0.1
# Share of the fine-tuned weights up to which fine-tuning loses; and the share of the time in which a head on larger
# images is fitted then.
LOSING_SHARE, MAX_TIME_SHARE_OF_LARGER = 0.25, 0.75
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
        val_loss: mean negative log-likelihood of the validation images; infinite without any.
        probabilities: float32 (N, num_classes), of the first N images of the held-out splits, by name.
    """

    classifier: PretrainedClassifier
    plan: FeaturePlan
    num_images: int
    head_accuracy: float
    tuned_share: float
    val_loss: float
    probabilities: Mapping[str, NDArray[np.float32]]


def fit_pretrained(
    weights: PretrainedWeights, data: FittingData, deadline: Deadline, device: torch.device, is_tuned: bool = True
) -> FittedClassifier:
    """Fit a linear head to the features of the training images, fine-tune, and predict the held-out images.

    Where fine-tuning loses, a head on the published features of larger images is tried too.

    Args:
        is_tuned: whether the last blocks are fine-tuned.
    Raises:
        NotAffordableError: where the budget leaves no time for it.
    """
    fitting = _Fitting(weights, data, deadline, device)
    fitted = fitting.fit(fitting.plan(is_tuned), MAX_TIME_SHARE)
    if fitted.plan.epochs and fitted.tuned_share <= LOSING_SHARE and (larger := fitting.plan_of_larger(fitted.plan)):
        with suppress(NotAffordableError):
            fitted = min(fitted, fitting.fit(larger, MAX_TIME_SHARE_OF_LARGER), key=lambda one: one.val_loss)
    return fitted


class _Fitting:
    """Makes classifiers of the same weights and images, all within shares of the time left when it was made."""

    def __init__(self, weights: PretrainedWeights, data: FittingData, deadline: Deadline, device: torch.device) -> None:
        self._data, self._deadline, self._device = data, deadline, device
        self._published = weights.read()
        is_timed = deadline.budget_seconds is not None
        self._extractor = FeatureExtractor(self._classifier(SMALLEST_SIDE), device, data.train.images, is_timed)
        self._started, self._left = deadline.elapsed(), max(deadline.remaining() - RESERVED_SECONDS, 0.0)
        self._features_seconds = self._extractor.seconds_per_image

    def plan(self, is_tuned: bool) -> FeaturePlan:
        """Side, images and epochs that there is time for. Raises NotAffordableError where it is too short."""
        num_classes, num_train = self._data.train.num_classes, len(self._data.train)
        most, least = MAX_TARGETS // num_classes, min(num_train, MIN_IMAGES_PER_CLASS * num_classes)
        if most < least:
            num_classes = MAX_TARGETS // MIN_IMAGES_PER_CLASS
            raise NotAffordableError(f"a head on pretrained features is fitted to {num_classes:,} classes at most")
        held_out = {name: len(split) for name, split in self._data.held_out.items()}
        wanted = {"train": min(num_train, most), **held_out}
        if not self._extractor.is_timed:
            return plan_features(wanted, least, FeatureCosts(0.0, {}), None, is_tuned)
        classifier, precision = self._classifier(SMALLEST_SIDE), self._extractor.precision
        epoch_seconds = {
            num_frozen: FineTuning(num_frozen, 1, self._data.seed).seconds_per_image(classifier, precision)
            for num_frozen in (FROZEN_BLOCKS if is_tuned else ())
        }
        costs = FeatureCosts(self._features_seconds, epoch_seconds)
        seconds = TIME_SHARE * self._left - self._head_seconds(wanted["train"])
        return plan_features(wanted, least, costs, seconds, is_tuned)

    def plan_of_larger(self, plan: FeaturePlan) -> FeaturePlan | None:
        """Without fine-tuning, the largest of the sides above a plan's that there is time for; None for none, and where
        no clock is read."""
        if not self._extractor.is_timed:
            return None
        seconds = self._seconds_until(MAX_TIME_SHARE_OF_LARGER) - self._head_seconds(plan.num_images["train"])
        costs = FeatureCosts(self._features_seconds, {})
        larger = (FeaturePlan(plan.num_images, side) for side in BACKBONE_SIDES if side > plan.side)
        return next((one for one in larger if one.seconds(costs) <= seconds and one.num_bytes <= max_bytes()), None)

    def fit(self, plan: FeaturePlan, max_time_share: float) -> FittedClassifier:
        """The classifier of a plan. Fine-tuning ends at a share of the time, and activations do before."""
        data, classifier = self._data, self._classifier(plan.side)
        self._extractor.use(plan.side, plan.num_frozen)
        held_out, activations = self._activations(plan, max_time_share - SHARE_AFTER_ACTIVATIONS)
        labels = torch.from_numpy(data.train.labels[data.order[: len(activations)]])
        features = features_of(classifier.backbone, activations, plan.num_frozen, self._device)
        head = fit_head(features, labels, data.train.num_classes)
        with torch.no_grad():
            classifier.head.weight.copy_(head.weight)
            classifier.head.bias.copy_(head.bias)
        val, val_labels = held_out.get("val", activations[:0]), np.empty(0, np.int64)
        if "val" in held_out:
            val_labels = data.held_out["val"].labels[: len(val)]
        tuned_share = 0.0
        if plan.epochs:
            published = {name: value.clone() for name, value in classifier.state_dict().items()}
            tuning = FineTuning(plan.num_frozen, plan.epochs, data.seed, self._seconds_until(max_time_share))
            tuning.run(classifier, activations, labels)
            tuned_share = best_share(
                classifier, published, lambda num: probabilities_of(classifier, val[:num], plan.num_frozen), val_labels
            )
        val_loss = inf
        if len(val):
            val_loss = calibrate(classifier, probabilities_of(classifier, val, plan.num_frozen), val_labels)
        probabilities = {name: probabilities_of(classifier, split, plan.num_frozen) for name, split in held_out.items()}
        return FittedClassifier(classifier, plan, len(activations), head.accuracy, tuned_share, val_loss, probabilities)

    def _classifier(self, side: int) -> PretrainedClassifier:
        classifier = PretrainedClassifier(self._data.train.num_classes, side).eval()
        classifier.backbone.load_state_dict(self._published)
        return classifier.to(self._device)

    def _activations(self, plan: FeaturePlan, max_time_share: float) -> tuple[dict[str, Tensor], Tensor]:
        """Activations of the held-out splits, and of as many training images as there is time for."""

        def is_over() -> bool:
            return self._seconds_until(max_time_share) < 0

        data, numbers, extractor = self._data, plan.num_images, self._extractor
        held_out = {
            name: extractor.activations(split.images[: numbers[name]], is_over) for name, split in data.held_out.items()
        }
        if is_over() or any(len(activations) < numbers[name] for name, activations in held_out.items()):
            raise NotAffordableError(
                "pretrained features took much longer than measured, as beside other programs they may"
            )
        return held_out, extractor.activations(data.train.images[data.order[: numbers["train"]]], is_over)

    def _head_seconds(self, num_train: int) -> float:
        return HEAD_SECONDS * min(1.0, num_train * self._data.train.num_classes / MAX_LOGISTIC)

    def _seconds_until(self, time_share: float) -> float:
        """Seconds until a share of the time that was left at first has passed."""
        return self._started + time_share * self._left - self._deadline.elapsed()


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


def calibrate(classifier: PretrainedClassifier, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Divide the classifier's logits by the temperature that makes validation images most likely, and return their
    mean negative log-likelihood then: label smoothing makes a classifier less sure than it is right."""
    temperature = fit_temperature(probabilities, labels)
    with torch.no_grad():
        classifier.head.weight.div_(temperature)
        classifier.head.bias.div_(temperature)
    return mean_loss(apply_temperature(probabilities, temperature), labels)
