"""The accuracy to expect of trainings on one data set."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from timebox.builders import build_resizing
from timebox.data.dataset import ImageDataset
from timebox.planning.auto import auto_recipe
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.forecast.accuracy_model import COVERAGE, TrainingFeatures, fitted_model, training_work
from timebox.planning.forecast.patch_classifier import PatchAccuracy, TooSlowError, measure_patch_accuracy
from timebox.recipes import Recipe

NO_TIME = "the budget leaves no time to look at the images for it"


class UnknownAccuracyError(Exception):
    """No accuracy can be forecast; the message says why."""


@dataclass(frozen=True)
class Forecast:
    """The accuracy to expect of a training on images held out from it, 0...1.

    Attributes:
        budget_seconds: the budget of the training.
        expected: the middle of the interval.
        low, high: the 80 % interval. On data sets left out of the fit four of five trainings came out inside
            (docs/explanation/auto.md).
    """

    budget_seconds: Annotated[float, Meta(ge=0)]
    expected: Annotated[float, Meta(ge=0, le=1)]
    low: Annotated[float, Meta(ge=0, le=1)]
    high: Annotated[float, Meta(ge=0, le=1)]

    def __str__(self) -> str:
        expected, low, high = (f"{100 * share:.0f} %" for share in (self.expected, self.low, self.high))
        return f"{expected} ({100 * COVERAGE:.0f} % interval: {low} to {high})"


class DatasetForecaster:
    """Forecasts trainings of ``auto`` on one data set and machine.

    Args:
        limit_seconds: time for looking at the images, about half a second on two free cores. Where they do not do,
            nothing is forecast.
        seconds_per_image: of a training with a recipe, on whole images.
        num_scored: number of held-out images that the accuracy will be measured on.
    """

    def __init__(
        self,
        train: ImageDataset,
        profile: DatasetProfile,
        seconds_per_image: Callable[[Recipe], float],
        num_scored: int,
        limit_seconds: float,
    ) -> None:
        self._profile, self._seconds_per_image, self._num_scored = profile, seconds_per_image, num_scored
        self._patches: PatchAccuracy | None = None
        with suppress(TooSlowError):
            self._patches = measure_patch_accuracy(train, limit_seconds=limit_seconds)

    def forecast(self, budget_seconds: float, training_seconds: float) -> Forecast:
        """The forecast for a budget that leaves so many seconds of training.

        Raises UnknownAccuracyError where the fit knows nothing of such data or trainings, and where no time is left.
        """
        if self._patches is None:
            raise UnknownAccuracyError(NO_TIME)
        if training_seconds <= 0:
            raise UnknownAccuracyError("the budget leaves no time for training")

        def images_affordable(recipe: Recipe) -> float:
            return build_resizing(recipe).steps_in(training_seconds / self._seconds_per_image(recipe))

        recipe, _ = auto_recipe(self._profile, images_affordable)
        work = training_work(recipe, self._profile.side, images_affordable(recipe))
        profile, model = self._profile, fitted_model()
        features = TrainingFeatures(profile.num_images, profile.num_classes, self._patches, work)
        if unknown := model.unknown(features):
            raise UnknownAccuracyError("; ".join(unknown))
        low, expected, high = model.interval(features, self._num_scored)
        return Forecast(budget_seconds, round(expected, 4), round(low, 4), round(high, 4))
