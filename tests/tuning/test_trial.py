"""One training of a search."""

import numpy as np
import pytest
import torch

from budgets import within_budget
from small_runs import SMALL, coloured
from timebox.configs.data import DataConfig
from timebox.data import ImageDataset
from timebox.errors import UsageError
from timebox.reporter import StepStatus
from timebox.tuning.trial import MOST_VAL_IMAGES, DivergedError, DivergenceGuard, Trainer

SOURCE = DataConfig("data.npz", None, None, None, None, 0, False)


def dataset(num: int, seed: int = 0) -> ImageDataset:
    images, labels = coloured(num, seed=seed)
    ids = tuple(f"{seed}-{k}" for k in range(num))
    return ImageDataset(images, labels, ("red", "green", "blue"), ids)


def trainer(num: int = 120, num_val: int = 60) -> Trainer:
    return Trainer(dataset(num), dataset(num_val, 1), SOURCE, torch.device("cpu"), "fp32", seed=0)


@pytest.mark.integration
def test_a_recipe_is_measured_within_its_budget() -> None:
    measured, budget = within_budget(lambda seconds: trainer().measure("haet2021", SMALL, 0, seconds), 3.0)
    assert measured.seconds <= budget
    assert measured.num_images == 60
    assert 0 <= measured.accuracy <= 1
    assert measured.recipe["width"] == 4
    assert measured.recipe["tta"] == "none"


def test_a_cut_keeps_the_share_of_each_class_and_takes_the_same_images() -> None:
    whole = trainer(120)
    cut = whole.cut(30)
    assert cut.num_images == 30
    train = cut._division.train
    assert train.class_counts().tolist() == [10, 10, 10]
    assert np.array_equal(train.images, whole.cut(30)._division.train.images)
    assert whole.cut(1000).num_images == 120


def test_no_more_images_judge_than_tell_something() -> None:
    many = trainer(12, MOST_VAL_IMAGES + 300)
    val = many._division.val
    assert val is not None
    assert len(val) == MOST_VAL_IMAGES


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="image_size"):
        trainer().measure("haet2021", (*SMALL, "image_size=3"), 0, 3.0)


def status(loss: float) -> StepStatus:
    return StepStatus(1, 10, 0.1, 0.1, loss, 0.1, 0.9, 100.0, 1.0, None)


def test_a_training_is_cut_short_only_where_it_diverges() -> None:
    guard = DivergenceGuard()
    for loss in [2.3] * 10 + [8.0] * 50 + [float("nan")] * 50 + [1.0] * 10:  # bad for long, but it comes back
        guard.step(status(loss))
    with pytest.raises(DivergedError, match="rose from"):
        for _ in range(20):
            guard.step(status(50.0))


def test_a_rate_far_too_large_diverges() -> None:
    wild = (*SMALL, "max_lr=10000", "policy=constant", "start_fraction=1")
    with pytest.raises(DivergedError):
        within_budget(lambda seconds: trainer().measure("haet2021", wild, 0, seconds), 30.0)
