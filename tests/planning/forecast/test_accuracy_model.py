"""The accuracy model: monotone where it must be, bounded, and silent about what it was not fitted to."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timebox.planning.auto import AUTO_BASE
from timebox.planning.forecast.accuracy_model import (
    TrainingFeatures,
    fitted_model,
    to_accuracy,
    to_angle,
    training_work,
)
from timebox.planning.forecast.patch_classifier import PatchAccuracy

PHOTOS = TrainingFeatures(
    num_images=4000, num_classes=10, patches=PatchAccuracy(0.55, 0.48), work=5000.0
)  # as of ten classes of photos after a minute on two cores


@given(share=st.floats(0, 1), num_classes=st.integers(2, 1000))
def test_angles_and_accuracies_are_each_others_inverse(share: float, num_classes: int) -> None:
    accuracy = 1 / num_classes + (1 - 1 / num_classes) * share
    assert to_accuracy(to_angle(accuracy, num_classes), num_classes) == pytest.approx(accuracy)


@given(
    num_images=st.integers(250, 90_000),
    num_classes=st.integers(2, 150),
    many=st.floats(0, 1),
    few=st.floats(0, 1),
    work=st.floats(1, 1e7),
    num_scored=st.integers(0, 100_000),
)
def test_the_interval_is_in_order_and_between_chance_and_all(
    num_images: int, num_classes: int, many: float, few: float, work: float, num_scored: int
) -> None:
    features = TrainingFeatures(num_images, num_classes, PatchAccuracy(many, few), work)
    low, middle, high = fitted_model().interval(features, num_scored)
    assert 1 / num_classes - 1e-9 <= low <= middle <= high <= 1 + 1e-9


def test_more_work_more_images_and_an_easier_task_are_more_accurate() -> None:
    def expected(**changes: Any) -> float:
        return fitted_model().interval(replace(PHOTOS, **changes), 10_000)[1]

    steps: dict[str, tuple[object, ...]] = {
        "work": (300, 1000, 3000, 10_000, 100_000, 1_000_000),
        "num_images": (1000, 4000, 16_000, 45_000),
        "patches": tuple(PatchAccuracy(share, 0.9 * share) for share in (0.2, 0.4, 0.6, 0.8)),
    }
    for name, values in steps.items():
        reached = [expected(**{name: value}) for value in values]
        assert all(later > earlier for earlier, later in pairwise(reached)), (name, reached)


def test_few_scored_images_widen_the_interval() -> None:
    narrow, wide = (fitted_model().interval(PHOTOS, num) for num in (10_000, 50))
    assert wide[0] < narrow[0] < narrow[2] < wide[2]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"num_images": 40}, "40 images, where it was fitted to"),
        ({"num_images": 2_000_000}, "2,000,000 images, where it was fitted to"),
        ({"num_classes": 1000}, "1,000 classes, where it was fitted to 2 to 100"),
        ({"work": 1e9}, "more training than any that it was fitted to"),
        ({"work": 0.1}, "less training than any that it was fitted to"),
        ({"patches": PatchAccuracy(0.1, 0.1)}, "a simple classifier gets 10 % of these images right, nearer to chance"),
    ],
)
def test_nothing_is_said_about_what_is_far_from_the_fit(changes: dict[str, Any], says: str) -> None:
    assert fitted_model().unknown(PHOTOS) == []
    (reason,) = fitted_model().unknown(replace(PHOTOS, **changes))
    assert says in reason


def test_work_counts_images_networks_width_and_pixels() -> None:
    recipe = AUTO_BASE.replace(width=64, input_scale=1.0, ensemble_size=1)
    assert training_work(recipe, 32, 1000) == 1000
    assert training_work(recipe.replace(width=32), 32, 1000) == 250
    assert training_work(recipe.replace(input_scale=0.5), 128, 1000) == 4000
    assert training_work(recipe.replace(ensemble_size=4), 32, 1000) == 4000
