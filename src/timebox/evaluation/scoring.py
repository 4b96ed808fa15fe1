"""Accuracy of a trained model on its val and test splits, as far as the time set aside for scoring allows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from timebox.clock import Deadline
from timebox.data import ImageDataset, stratified_order
from timebox.distributed.messages import Message
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.calibration import fit_temperature
from timebox.evaluation.inference import InferenceConfig, never, predict_probabilities
from timebox.evaluation.metrics import accuracy

# With less than this share of the planned scoring time left, images are scored without test-time augmentation.
MIN_TTA_TIME_SHARE = 0.5
# Probabilities that are held of a split, 256 MB: with 1,000 classes 67,108 images are scored at most, with 100,000 671.
MAX_PROBABILITIES = 1 << 26


@dataclass(frozen=True, eq=False)
class SplitScore:
    """The class probabilities, not calibrated, of a split or of as much of it as there was time and memory for.

    ``dataset`` are the scored images in stratified order, out of ``num_total``.
    """

    split: str
    dataset: ImageDataset
    probabilities: NDArray[np.float32]
    num_total: int
    tta: str

    @property
    def accuracy(self) -> float:
        return accuracy(self.probabilities, self.dataset.labels)

    @cached_property
    def temperature(self) -> float:
        """See :func:`timebox.evaluation.calibration.fit_temperature`."""
        return fit_temperature(self.probabilities, self.dataset.labels)


class ScoreSplit(Message, frozen=True):
    """Message of the main rank: score this split, with this test-time augmentation."""

    split: str
    tta: str


@dataclass(frozen=True)
class ScoringTime:
    """The time planned for scoring, infinite where no clock is read, and the time that must be left after it."""

    deadline: Deadline
    planned_seconds: float
    reserved_seconds: float

    def seconds_left(self) -> float:
        """Seconds that scoring may still take, not more than planned."""
        return min(self.planned_seconds, self.deadline.remaining() - self.reserved_seconds)


class TimeLimit:
    """A stop condition: the longest interval between two calls no longer fits before ``until`` (elapsed seconds)."""

    def __init__(self, deadline: Deadline, until: float) -> None:
        self._deadline, self._until = deadline, until
        self._last, self._longest = deadline.elapsed(), 0.0

    def __call__(self) -> bool:
        moment = self._deadline.elapsed()
        self._longest = max(self._longest, moment - self._last)
        self._last = moment
        return moment + self._longest > self._until


def in_scoring_order(dataset: ImageDataset, split_seed: int, num_images: int | None = None) -> ImageDataset:
    """The first ``num_images`` of a dataset in stratified order; None for all whose probabilities may be held."""
    largest = max(1, MAX_PROBABILITIES // dataset.num_classes)
    num_images = largest if num_images is None else min(num_images, largest)
    return dataset.take(stratified_order(dataset.labels, split_seed)[:num_images])


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores images with a model. The ranks of a group share the batches, and all call the same methods in turn.

    Images are scored in a stratified order, from ``split_seed``: any first part of it stands for the split.
    """

    mean: Tensor
    std: Tensor
    device: torch.device
    batch_size: int
    split_seed: int = 0
    group: ProcessGroup = SINGLE_PROCESS

    def stratify(self, dataset: ImageDataset, num_images: int | None = None) -> ImageDataset:
        """See :func:`in_scoring_order`."""
        return in_scoring_order(dataset, self.split_seed, num_images)

    def predict(
        self, model: nn.Module, dataset: ImageDataset, tta: str, stop: Callable[[], bool] = never
    ) -> NDArray[np.float32]:
        """Class probabilities of the first images, see :func:`predict_probabilities`."""
        config = InferenceConfig(self.mean, self.std, tta, self.batch_size)
        return predict_probabilities(model, dataset.images, config, self.device, stop=stop, group=self.group)

    def accuracy(self, model: nn.Module, dataset: ImageDataset) -> float:
        """Accuracy, 0...1, without test-time augmentation."""
        return accuracy(self.predict(model, dataset, "none"), dataset.labels)

    def score_splits(
        self, model: nn.Module, splits: Mapping[str, ImageDataset], tta: str, time: ScoringTime
    ) -> list[SplitScore]:
        """Score splits in their order; each gets a share of the time in proportion to its number of images.

        Where time has run short, fewer images are scored; then each without test-time augmentation; then none of the
        last split, and at last none at all. Called on the main rank: each split is broadcast to the worker ranks, which
        call :meth:`score_split`.
        """
        seconds_left = time.seconds_left()
        is_short = seconds_left < MIN_TTA_TIME_SHARE * time.planned_seconds < float("inf")
        tta = "none" if is_short else tta
        deadline, end = time.deadline, time.deadline.elapsed() + seconds_left
        images_left = sum(map(len, splits.values()))
        scores = []
        for name, dataset in splits.items():
            seconds = end - deadline.elapsed()
            if seconds > 0:
                until = deadline.elapsed() + seconds * len(dataset) / images_left
                self.group.broadcast(ScoreSplit(name, tta))
                scores.append(self.score_split(model, name, dataset, tta, TimeLimit(deadline, until)))
            images_left -= len(dataset)
        return scores

    def score_split(
        self, model: nn.Module, name: str, dataset: ImageDataset, tta: str, stop: Callable[[], bool] = never
    ) -> SplitScore:
        """Score a split in stratified order until ``stop`` says so."""
        ordered = self.stratify(dataset)
        probabilities = self.predict(model, ordered, tta, stop)
        return SplitScore(name, ordered.take(np.arange(len(probabilities))), probabilities, len(dataset), tta)
