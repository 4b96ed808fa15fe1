"""The accuracy that ``auto`` reaches, as a linear model of data and work, fitted to the trainings in records/."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec

from timebox.planning.forecast.patch_classifier import PatchAccuracy
from timebox.recipes import Recipe

# Written by benchmarks/fit_forecast.py.
FITTED = "fitted.json"
# Share of the cases that an interval holds.
COVERAGE = 0.8
# Work counts images of so many pixels seen by a network of such a width; in the terms of the model, in thousands.
WORK_WIDTH, WORK_SIDE, WORK_IMAGES = 64, 32, 1000
REFERENCE_IMAGES, REFERENCE_CLASSES = 5000, 10
# The fit knows nothing of data sets this many times smaller or larger than all that it was fitted to, and of trainings
# with less or more work.
RANGE_MARGIN = {"images": 2.0, "classes": 1.5, "work": 10.0}
# Nor of data on which the classifier on patches is nearer to chance by this angle.
PATCH_ANGLE_MARGIN = 0.1


@dataclass(frozen=True)
class TrainingFeatures:
    """The features that the accuracy of a training is forecast from.

    Attributes:
        num_images: training images.
        patches: of a classifier on patches.
        work: see :func:`training_work`.
    """

    num_images: int
    num_classes: int
    patches: PatchAccuracy
    work: float

    @property
    def patch_angle(self) -> float:
        """The accuracy of the classifier on patches, as an angle: see :func:`to_angle`."""
        return to_angle(self.patches.many, self.num_classes)

    def vector(self) -> tuple[float, ...]:
        """The terms of the linear model.

        Work counts as the inverse of its cube root: the accuracy approaches a limit as it grows. The limit depends on
        the data; hard tasks and those of many images need more work to approach it.
        """
        missing = (WORK_IMAGES / max(self.work, 1.0)) ** (1 / 3)
        images = math.log10(self.num_images / REFERENCE_IMAGES)
        classes = math.log(self.num_classes / REFERENCE_CLASSES)
        gain = self.patch_angle - to_angle(self.patches.few, self.num_classes)
        return (1.0, self.patch_angle, gain, images, classes, missing, missing * images, missing * classes)


class AccuracyModel(msgspec.Struct, frozen=True, kw_only=True):
    """A linear mixed model of the accuracy above chance, as an angle: see :func:`to_angle`.

    Attributes:
        coefficients: of the terms of :meth:`TrainingFeatures.vector`.
        covariance: of the coefficients.
        data_sd: standard deviation of the angle between data sets of equal features.
        training_sd: standard deviation between trainings on one data set.
        quantile: standard deviations on either side of the mean within which :data:`COVERAGE` of the trainings came
            out, on data sets left out of the fit.
        ranges: smallest and largest ``images``, ``classes``, ``work`` and ``patch_angle`` of the trainings fitted to.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    data_sd: float
    training_sd: float
    quantile: float
    ranges: dict[str, tuple[float, float]]

    def angle(self, features: TrainingFeatures, num_scored: int) -> tuple[float, float]:
        """Mean and standard deviation of the accuracy as an angle, on ``num_scored`` held-out images."""
        vector = features.vector()
        variance = _dot([_dot(row, vector) for row in self.covariance], vector)
        scoring_variance = 1 / num_scored if num_scored else 0.0
        sd = math.sqrt(variance + self.data_sd**2 + self.training_sd**2 + scoring_variance)
        return _dot(self.coefficients, vector), sd

    def interval(self, features: TrainingFeatures, num_scored: int) -> tuple[float, float, float]:
        """Lower end, middle and upper end of the accuracy, 0...1, on ``num_scored`` held-out images."""
        mean, sd = self.angle(features, num_scored)
        angles = (mean - self.quantile * sd, mean, mean + self.quantile * sd)
        low, middle, high = (to_accuracy(angle, features.num_classes) for angle in angles)
        return low, middle, high

    def unknown(self, features: TrainingFeatures) -> list[str]:
        """Reasons in words why the features are far from all that the model was fitted to; empty where they are not."""
        reasons = []
        for name, value in (("images", features.num_images), ("classes", features.num_classes)):
            low, high = self.ranges[name]
            if not low / RANGE_MARGIN[name] <= value <= high * RANGE_MARGIN[name]:
                reasons.append(f"{value:,} {name}, where it was fitted to {low:,.0f} to {high:,.0f}")
        low, high = self.ranges["work"]
        if not low / RANGE_MARGIN["work"] <= features.work <= high * RANGE_MARGIN["work"]:
            reasons.append(f"{'less' if features.work < low else 'more'} training than any that it was fitted to")
        if features.patch_angle < self.ranges["patch_angle"][0] - PATCH_ANGLE_MARGIN:
            reasons.append(
                f"a simple classifier gets {100 * features.patches.many:.0f} % of these images right, nearer to chance "
                "than on any data that it was fitted to"
            )
        return reasons


def training_work(recipe: Recipe, side: float, num_images_seen: float) -> float:
    """The operations of a training, in those of one image of 32 pixels in a network of width 64.

    Args:
        side: shorter side of the images in pixels, before the network resizes them.
        num_images_seen: training images, repeats counted.
    """
    size = (recipe.width / WORK_WIDTH * recipe.input_scale * side / WORK_SIDE) ** 2
    return num_images_seen * recipe.ensemble_size * size


def to_angle(accuracy: float, num_classes: int) -> float:
    """The share of what chance gets wrong that is right, as an angle, 0...pi.

    Twice the arcsine of its root: on this scale the noise of a measured share is about the same everywhere, with a
    variance of one divided by the number of images.
    """
    chance = 1 / num_classes
    return 2 * math.asin(math.sqrt(min(1.0, max(0.0, (accuracy - chance) / (1 - chance)))))


def to_accuracy(angle: float, num_classes: int) -> float:
    """The accuracy, 0...1, from its angle; angles outside 0...pi count as the nearest of these."""
    chance = 1 / num_classes
    return chance + (1 - chance) * math.sin(min(math.pi, max(0.0, angle)) / 2) ** 2


@cache
def fitted_model() -> AccuracyModel:
    """The model as fitted to the trainings in records/."""
    text = resources.files(__package__).joinpath(FITTED).read_bytes()
    return msgspec.json.decode(text, type=AccuracyModel)


def _dot(weights: Sequence[float], values: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
