"""Scoring inside a budget: each split gets its share of the time, and what is scored stands for the whole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from small_runs import CLASSES, coloured
from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.configs.train import TrainConfig
from timebox.data import ImageDataset, SourceSplits, split_dataset
from timebox.jobs import job as task_module
from timebox.jobs.job import SplitScore, TimeLimit, TrainingJob, prediction_columns
from timebox.planning.plan import Plan
from timebox.recipe import get_recipe

CPU = torch.device("cpu")
BATCH = 10
MODEL = nn.Identity()


def dataset(num: int) -> ImageDataset:
    images, labels = coloured(num)
    return ImageDataset(images, labels, CLASSES, tuple(str(i) for i in range(num)))


def task(num_val: int, num_test: int, scoring_seconds: float, finish_seconds: float = 0.0) -> TrainingJob:
    recipe = get_recipe("haet2021")
    plan = Plan(recipe, CPU, 1, "fp32", None, 512, 1.0, 1, scoring_seconds, 0.0, finish_seconds, 0, 50, ())
    source = DataConfig("colours", None, None, None, None, 0, False)
    request = TrainConfig.of(source, recipe="haet2021", precision="fp32")
    val, test = (dataset(num) if num else None for num in (num_val, num_test))
    data_splits = split_dataset(SourceSplits(dataset(30), val, test), val=None if val else "none")
    return TrainingJob(request, plan, data_splits, torch.zeros(3), torch.ones(3), None, "")


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Callable[[TrainingJob, float], list[SplitScore]]:
    """scored(task, budget): what is scored where ten images take a second."""

    def score(some: TrainingJob, budget: float) -> list[SplitScore]:
        moment = [0.0]

        def predict(
            model: object, images: NDArray[np.uint8], *rest: object, stop: Callable[[], bool], **more: object
        ) -> NDArray[np.float32]:
            count = 0
            while count < len(images) and not (count and stop()):
                count = min(count + BATCH, len(images))
                moment[0] += 1.0
            return np.eye(3, dtype=np.float32)[np.zeros(count, int)]

        monkeypatch.setattr(task_module, "predict_probabilities", predict)
        return some.score(MODEL, Deadline(budget, now=lambda: moment[0]))

    return score


def counts(scores: list[SplitScore]) -> dict[str, tuple[int, int]]:
    return {score.split: (len(score.dataset), score.num_total) for score in scores}


def test_with_time_enough_all_is_scored(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    scores = scored(task(100, 300, scoring_seconds=50), 100)
    assert counts(scores) == {"val": (100, 100), "test": (300, 300)}
    assert [score.accuracy for score in scores] == pytest.approx([1 / 3, 1 / 3], abs=0.01)


def test_each_split_gets_its_share(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    found = counts(scored(task(100, 300, scoring_seconds=20), 100))
    assert 50 <= found["val"][0] <= 60
    assert 140 <= found["test"][0] <= 160
    assert (found["val"][1], found["test"][1]) == (100, 300)


def test_time_set_aside_for_the_end_is_not_touched(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    found = counts(scored(task(0, 400, scoring_seconds=30, finish_seconds=5), 20))
    assert 150 <= found["test"][0] <= 160


def test_when_time_runs_short_views_go_first_then_the_test_images_then_all(
    scored: Callable[[TrainingJob, float], list[SplitScore]],
) -> None:
    plenty = scored(task(100, 300, scoring_seconds=20, finish_seconds=5), 100)
    assert {score.tta for score in plenty} == {"mirror"}
    short = scored(task(100, 300, scoring_seconds=20, finish_seconds=5), 14)
    assert counts(short) == {"val": (20, 100), "test": (70, 300)}
    assert {score.tta for score in short} == {"none"}
    assert counts(scored(task(100, 300, scoring_seconds=20, finish_seconds=5), 5.5)) == {"val": (10, 100)}
    assert scored(task(100, 300, scoring_seconds=20, finish_seconds=5), 5) == []


def test_what_is_scored_stands_for_the_whole(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    (score,) = scored(task(0, 300, scoring_seconds=8), 100)
    assert len(score.dataset) < 100
    assert score.dataset.class_counts().max() - score.dataset.class_counts().min() <= 1
    assert len(set(score.dataset.ids)) == len(score.dataset)


def test_nothing_to_score(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    assert scored(task(0, 0, scoring_seconds=10), 100) == []


def test_columns_of_predictions(scored: Callable[[TrainingJob, float], list[SplitScore]]) -> None:
    columns = prediction_columns(scored(task(20, 30, scoring_seconds=50), 100))
    assert {name: (column.shape, column.dtype.kind) for name, column in columns.items()} == {
        "split": ((50,), "U"),
        "id": ((50,), "U"),
        "label": ((50,), "i"),
        "probabilities": ((50, 3), "f"),
    }
    assert columns["split"].tolist() == ["val"] * 20 + ["test"] * 30


def test_scoring_stops_before_a_piece_of_work_that_would_last_too_long() -> None:
    moments = iter((0.0, 0.0, 2.0, 5.0, 6.0, 7.5))
    stop = TimeLimit(Deadline(None, started_at=0.0, now=lambda: next(moments)), 10.0)
    answers = [stop() for _ in range(4)]
    assert answers == [False, False, False, True], "the longest took 3 s: 7.5 s and 3 s are beyond 10 s"
