"""Scoring inside a budget: each split gets its share of the time, and the scored images represent the split."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from small_runs import CLASSES, coloured
from timebox.clock import Deadline
from timebox.data import ImageDataset
from timebox.evaluation.scoring import Scorer, ScoringTime, SplitScore, TimeLimit

BATCH = 10
Score = Callable[..., list[SplitScore]]


def dataset(num: int) -> ImageDataset:
    images, labels = coloured(num)
    return ImageDataset(images, labels, CLASSES, tuple(str(i) for i in range(num)))


@pytest.fixture
def score(monkeypatch: pytest.MonkeyPatch) -> Score:
    """score(num_val, num_test, budget, planned_seconds, reserved_seconds): the scores at ten images a second."""

    def score(
        num_val: int, num_test: int, budget: float, planned_seconds: float, reserved_seconds: float = 0.0
    ) -> list[SplitScore]:
        moment = [0.0]

        def predict(
            model: object, images: NDArray[np.uint8], *rest: object, stop: Callable[[], bool], **more: object
        ) -> NDArray[np.float32]:
            count = 0
            while count < len(images) and not (count and stop()):
                count = min(count + BATCH, len(images))
                moment[0] += 1.0
            return np.eye(3, dtype=np.float32)[np.zeros(count, int)]

        monkeypatch.setattr("timebox.evaluation.scoring.predict_probabilities", predict)
        splits = {name: dataset(num) for name, num in (("val", num_val), ("test", num_test)) if num}
        scorer = Scorer(torch.zeros(3), torch.ones(3), torch.device("cpu"), batch_size=50)
        time = ScoringTime(Deadline(budget, now=lambda: moment[0]), planned_seconds, reserved_seconds)
        return scorer.score_splits(nn.Identity(), splits, "mirror", time)

    return score


def counts(scores: list[SplitScore]) -> dict[str, tuple[int, int]]:
    return {score.split: (len(score.dataset), score.num_total) for score in scores}


def test_with_enough_time_every_image_is_scored(score: Score) -> None:
    scores = score(100, 300, budget=100, planned_seconds=50)
    assert counts(scores) == {"val": (100, 100), "test": (300, 300)}
    assert [score.accuracy for score in scores] == pytest.approx([1 / 3, 1 / 3], abs=0.01)


def test_each_split_gets_its_share_of_the_time(score: Score) -> None:
    scored = counts(score(100, 300, budget=100, planned_seconds=20))
    assert 50 <= scored["val"][0] <= 60
    assert 140 <= scored["test"][0] <= 160
    assert (scored["val"][1], scored["test"][1]) == (100, 300)


def test_the_reserved_time_is_left(score: Score) -> None:
    scored = counts(score(0, 400, budget=20, planned_seconds=30, reserved_seconds=5))
    assert 150 <= scored["test"][0] <= 160


def test_when_time_runs_short_augmentation_goes_first_then_the_test_images_then_everything(score: Score) -> None:
    plenty = score(100, 300, budget=100, planned_seconds=20, reserved_seconds=5)
    assert {one.tta for one in plenty} == {"mirror"}
    short = score(100, 300, budget=14, planned_seconds=20, reserved_seconds=5)
    assert counts(short) == {"val": (20, 100), "test": (70, 300)}
    assert {one.tta for one in short} == {"none"}
    assert counts(score(100, 300, budget=5.5, planned_seconds=20, reserved_seconds=5)) == {"val": (10, 100)}
    assert score(100, 300, budget=5, planned_seconds=20, reserved_seconds=5) == []


def test_the_scored_images_are_stratified(score: Score) -> None:
    (test,) = score(0, 300, budget=100, planned_seconds=8)
    assert len(test.dataset) < 100
    assert test.dataset.class_counts().max() - test.dataset.class_counts().min() <= 1
    assert len(set(test.dataset.ids)) == len(test.dataset)


def test_no_splits_no_scores(score: Score) -> None:
    assert score(0, 0, budget=100, planned_seconds=10) == []


def test_a_time_limit_stops_before_an_interval_that_would_not_fit() -> None:
    moments = iter((0.0, 0.0, 2.0, 5.0, 6.0, 7.5))
    stop = TimeLimit(Deadline(None, started_at=0.0, now=lambda: next(moments)), 10.0)
    answers = [stop() for _ in range(4)]
    assert answers == [False, False, False, True], "the longest took 3 s: 7.5 s and 3 s are beyond 10 s"


def test_no_more_images_are_scored_than_whose_probabilities_may_be_held(
    score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timebox.evaluation.scoring.MAX_PROBABILITIES", 3 * 20)
    val, test = score(30, 15, budget=1000, planned_seconds=1000)
    assert [(len(one.dataset), one.num_total) for one in (val, test)] == [(20, 30), (15, 15)]
    assert np.bincount(val.dataset.labels).tolist() in ([7, 7, 6], [7, 6, 7], [6, 7, 7]), "stratified"
