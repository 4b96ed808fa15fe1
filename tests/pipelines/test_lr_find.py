"""timebox.lr_find: the files it writes, and the options it refuses."""

import json
import xml.etree.ElementTree as ET
from importlib import import_module

import pytest

from small_runs import SMALL, save_npz
from timebox.errors import BudgetError, OutputError, UsageError
from timebox.pipelines import lr_find
from timebox.training.lr_range_test import lr_range_test

# Real range tests.
pytestmark = pytest.mark.integration

# With min_steps=1 the batch size does not depend on the speed of the machine.
SETTINGS = (*SMALL, "min_steps=1")
QUICK = {"recipe": "haet2021", "settings": SETTINGS, "device": "cpu", "precision": "fp32", "train_budget": "20s"}


def test_a_suggestion_is_written_to_json_and_svg(tmp_path):
    data = save_npz(tmp_path / "data.npz", 300)
    found = lr_find(data, budget="10m", out=tmp_path / "lr", low=1e-4, high=1e3, **QUICK)
    assert found.test.suggestion is not None
    assert found.settings == [f"max_lr={found.test.suggestion:.3g}"]
    written = json.loads((tmp_path / "lr" / "lr_find.json").read_text())
    assert written["suggestion"] == found.test.suggestion
    assert len(written["lr"]) == len(written["loss"]) == len(written["smoothed_loss"]) == written["steps"]
    assert written["recipe"]["name"] == "haet2021"
    drawing = ET.fromstring((tmp_path / "lr" / "lr_find.svg").read_text())
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"


def test_one_network_of_an_ensemble_is_tested_and_filter_lr_scales(tmp_path):
    data = save_npz(tmp_path / "data.npz", 300)
    settings = ("width=4", "ensemble_size=2", "batch_size=32", "start_size=0.75", "full_size_at=0.5")
    found = lr_find(data, budget="10m", train_budget="20s", settings=settings, out=tmp_path / "lr", device="cpu")
    assert (found.recipe.ensemble_size, found.recipe.start_size) == (1, 1.0)
    assert found.filter_lr / found.test.suggestion == pytest.approx(found.recipe.filter_lr / found.recipe.max_lr)
    assert [setting.partition("=")[0] for setting in found.settings] == ["max_lr", "filter_lr"]


def test_a_network_is_tested_on_the_size_that_it_takes(tmp_path, monkeypatch):
    sizes = []

    def record(state, loader, *rest):
        sizes.append(loader.batch(0, 1.0).images.shape[2:])
        return lr_range_test(state, loader, *rest)

    monkeypatch.setattr(import_module("timebox.pipelines.learning_rate"), "lr_range_test", record)
    data = save_npz(tmp_path / "data.npz", 300)
    settings = ("width=4", "ensemble_size=1", "batch_size=32", "input_scale=2.0")
    lr_find(data, budget="10m", train_budget="20s", settings=settings, out=tmp_path / "lr", device="cpu")
    assert sizes == [(16, 16)]


def test_the_same_seed_gives_the_same_losses(tmp_path):
    data = save_npz(tmp_path / "data.npz", 300)
    one, same, other = (
        lr_find(data, budget="10m", seed=seed, out=tmp_path / "lr", **QUICK).test.losses for seed in (0, 0, 1)
    )
    assert one.tolist() == same.tolist()
    assert one.tolist() != other.tolist()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"low": 1.0, "high": 0.5}, UsageError, "the first must be above 0 and below the second"),
        ({"low": 0.0}, UsageError, "above 0"),
        ({"budget": "1s"}, BudgetError, "too short"),
        ({"train_budget": "0.1s"}, BudgetError, r"^train_budget 0.1s is too short: reading "),
        ({"recipe": "nothing"}, UsageError, "nothing"),
    ],
)
def test_wrong_ranges_budgets_and_recipes_are_refused(tmp_path, given, error, says):
    data = save_npz(tmp_path / "data.npz", 60)
    with pytest.raises(error, match=says):
        lr_find(data, out=tmp_path / "lr", **{**QUICK, **given})
    assert not (tmp_path / "lr").exists()


def test_a_directory_that_cannot_be_written_to_is_named(tmp_path):
    data = save_npz(tmp_path / "data.npz", 300)
    (tmp_path / "lr").write_text("a file")
    with pytest.raises(OutputError, match="lr"):
        lr_find(data, budget="10m", out=tmp_path / "lr", **QUICK)
