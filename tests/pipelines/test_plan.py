"""timebox.plan: the same plan as the training's, from the same arguments, and nothing written or trained."""

import json
from pathlib import Path

import pytest
import torch

import timebox
from small_runs import SMALL, save_npz, save_photos
from timebox.errors import BudgetError, DataError, UsageError

QUICK = {"recipe": "haet2021", "settings": SMALL, "device": "cpu", "precision": "fp32", "cache": False}


def test_the_training_takes_the_recipe_and_the_images_that_were_planned(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", 120, num_test=30)
    planned = timebox.plan(data, budget="20s", train_limit=100, val=0.2, **QUICK)
    run = timebox.train(data, steps=1, train_limit=100, val=0.2, out=tmp_path / "run", **QUICK)
    assert planned.recipe.as_dict() == run.recipe.as_dict()
    assert planned.num_images == {"train": 80, "val": 20, "test": 30}
    assert (planned.num_classes, planned.image_shape, planned.device, planned.precision) == (
        3,
        (8, 8, 3),
        "cpu",
        "fp32",
    )


def test_steps_epochs_and_seconds_belong_together(tmp_path: Path) -> None:
    planned = timebox.plan(save_npz(tmp_path / "data.npz", 120), budget=30, **QUICK)
    assert list(planned.seconds) == ["start-up", "reading", "planning", "training", "scoring", "reserve"]
    assert sum(planned.seconds.values()) == pytest.approx(30, abs=0.1)
    assert planned.epochs == planned.steps * planned.recipe.batch_size / planned.num_images["train"]
    assert planned.steps * planned.step_seconds == pytest.approx(planned.seconds["training"], rel=0.2)
    assert planned.lines[0].startswith("CPU, ")
    assert json.dumps(planned.as_dict())


def test_more_time_is_planned_for_more_epochs(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", 120)
    short, long = (timebox.plan(data, budget=budget, **QUICK).epochs for budget in ("10s", "100s"))
    assert long > 5 * short


def test_without_scoring_its_time_is_planned_for_training(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", 300, num_test=60)
    scored, unscored = (timebox.plan(data, budget="20s", scoring=scoring, **QUICK) for scoring in (True, False))
    assert unscored.seconds["scoring"] == 0 < scored.seconds["scoring"]


def test_nothing_is_written_and_torch_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = save_photos(tmp_path / "photos", 20)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    timebox.plan(data, budget="20s", **QUICK)
    assert list(empty.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_auto_is_planned_for_the_budget(tmp_path: Path) -> None:
    planned = timebox.plan(save_npz(tmp_path / "data.npz", 120), budget="20s", device="cpu")
    assert planned.recipe.name == "auto"
    assert any("the budget allows" in line for line in planned.lines)


def test_the_accuracy_of_auto_is_forecast_for_several_budgets(tmp_path: Path) -> None:
    planned = timebox.plan(save_npz(tmp_path / "data.npz", 900, num_test=60), budget="2m", device="cpu")
    assert [forecast.budget_seconds for forecast in planned.forecasts] == [60, 120, 180, 600, 3600]
    expected = [forecast.expected for forecast in planned.forecasts]
    assert expected == sorted(expected)
    assert all(forecast.low <= forecast.expected <= forecast.high for forecast in planned.forecasts)
    assert planned.lines[-1] == f"accuracy to expect: {planned.forecasts[1]}"
    assert json.loads(json.dumps(planned.as_dict()))["forecasts"][1]["budget_seconds"] == 120


@pytest.mark.parametrize(
    ("num_images", "given", "says"),
    [
        (120, {"budget": "1m"}, "108 images, where it was fitted to"),
        (
            900,
            {"budget": "1m", "settings": ("width=16",)},
            "it is fitted to trainings of the recipe auto without changes",
        ),
        (900, {"budget": "1m", **QUICK}, "it is fitted to trainings of the recipe auto without changes"),
        (900, {"budget": "8s"}, "no time to look at the images for it"),
    ],
)
def test_where_no_accuracy_is_forecast_a_line_says_why(
    tmp_path: Path, num_images: int, given: dict[str, object], says: str
) -> None:
    planned = timebox.plan(save_npz(tmp_path / "data.npz", num_images), **{"device": "cpu", **given})
    assert planned.forecasts == ()
    assert planned.lines[-1].startswith("no forecast of the accuracy: ")
    assert says in planned.lines[-1]


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"budget": "1s"}, BudgetError, "budget 1.0s is too short"),
        ({"val": 7}, UsageError, "val"),
        ({"train_limit": 1000}, UsageError, "train_limit"),
        ({"settings": ("width=1",)}, UsageError, "width"),
    ],
)
def test_what_the_training_would_refuse_is_refused(
    tmp_path: Path, given: dict[str, object], error: type[Exception], says: str
) -> None:
    data = save_npz(tmp_path / "data.npz", 120)
    with pytest.raises(error, match=says):
        timebox.plan(data, **{**QUICK, "budget": "20s", **given})


def test_data_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        timebox.plan(tmp_path / "nowhere")
