"""One training of a trial."""

import numpy as np
import pytest
import torch

from budgets import within_budget
from small_runs import SMALL, coloured
from timebox.configs.data import DataConfig
from timebox.data import ImageDataset
from timebox.errors import UsageError
from timebox.progress import StepStatus
from timebox.tuning.trial import MAX_VAL_IMAGES, DivergedError, DivergenceGuard, Trainer

SOURCE = DataConfig("data.npz")


def dataset(num: int, seed: int = 0) -> ImageDataset:
    images, labels = coloured(num, seed=seed)
    ids = tuple(f"{seed}-{k}" for k in range(num))
    return ImageDataset(images, labels, ("red", "green", "blue"), ids)


def trainer(num: int = 120, num_val: int = 60) -> Trainer:
    return Trainer(dataset(num), dataset(num_val, 1), SOURCE, torch.device("cpu"), "fp32", seed=0)


@pytest.mark.integration
def test_a_recipe_is_trained_and_scored_within_its_budget() -> None:
    measured, budget = within_budget(lambda seconds: trainer().train("haet2021", SMALL, 0, seconds), 3.0)
    assert measured.seconds <= budget
    assert measured.num_images == 60
    assert 0 <= measured.accuracy <= 1
    assert measured.recipe["width"] == 4
    assert measured.recipe["tta"] == "none"


def test_a_cut_is_stratified_and_repeatable() -> None:
    whole = trainer(120)
    cut = whole.cut(30)
    assert len(cut.train_images) == 30
    assert cut.train_images.class_counts().tolist() == [10, 10, 10]
    assert np.array_equal(cut.train_images.images, whole.cut(30).train_images.images)
    assert len(whole.cut(1000).train_images) == 120


def test_validation_images_are_limited() -> None:
    many = trainer(12, MAX_VAL_IMAGES + 300)
    assert len(many.val_images) == MAX_VAL_IMAGES


def test_an_invalid_recipe_is_refused() -> None:
    with pytest.raises(UsageError, match="image_size"):
        trainer().train("haet2021", (*SMALL, "image_size=3"), 0, 3.0)


def status(loss: float) -> StepStatus:
    return StepStatus(1, 10, 0.1, 0.1, loss, 0.1, 0.9, 100.0, 1.0, None)


def test_a_training_is_stopped_only_where_its_loss_diverges() -> None:
    guard = DivergenceGuard()
    for loss in [2.3] * 10 + [8.0] * 50 + [float("nan")] * 50 + [1.0] * 10:  # high for long, but it falls again
        guard.step(status(loss))
    with pytest.raises(DivergedError, match="rose from"):
        for _ in range(20):
            guard.step(status(50.0))


def test_a_rate_far_too_large_diverges() -> None:
    wild = (*SMALL, "max_lr=10000", "policy=constant", "start_fraction=1")
    with pytest.raises(DivergedError):
        within_budget(lambda seconds: trainer().train("haet2021", wild, 0, seconds), 30.0)
