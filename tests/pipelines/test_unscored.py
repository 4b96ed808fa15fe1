"""timebox.train(scoring=False): images are held out, and no budget is spent on scoring them."""

import json
from pathlib import Path

import pytest

from budgets import within_budget
from cut_runs import cut, entries, names
from small_runs import SMALL, quick, save_npz, weights
from timebox.errors import UsageError
from timebox.pipelines import evaluate, train
from timebox.run import Run


@pytest.fixture(scope="module")
def unscored(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return quick(data, tmp_path_factory.mktemp("runs") / "unscored", steps=40, test=24 / 150, scoring=False)


def test_nothing_is_scored_and_the_summary_has_the_totals(unscored: Run) -> None:
    summary = unscored.summary
    assert (summary["val_accuracy"], summary["val_images"], summary["val_images_total"]) == (None, 0, 13)
    assert (summary["test_accuracy"], summary["test_images"], summary["test_images_total"]) == (None, 0, 24)
    assert unscored.uncalibrated_reason == "the run was trained without scoring any images"
    assert "predictions.npz" not in names(unscored.path)
    assert not [entry for entry in entries(unscored.path) if "val_accuracy" in entry]


def test_the_images_are_held_out_nevertheless(unscored: Run, trained: Run, data: Path) -> None:
    assert weights(unscored) == weights(trained), "scoring changes nothing of what is trained"
    for split, num_images in (("val", 13), ("test", 24)):
        result = evaluate(unscored, data, split=split)
        assert (result.num_images, result.num_seen_in_training) == (num_images, 0)
    assert result.accuracy == pytest.approx(trained.test_accuracy)


@pytest.mark.integration
def test_no_budget_is_set_aside_for_scoring(data: Path, tmp_path: Path) -> None:
    given = {"recipe": "haet2021", "settings": SMALL, "device": "cpu", "scoring": False, "out": tmp_path / "run"}
    run, _ = within_budget(lambda seconds: train(data, budget=seconds, **given), 6.0)  # type: ignore[arg-type]
    assert any(" 0.0s for scoring" in str(line) for line in run.summary["plan"])  # type: ignore[attr-defined]
    assert "validating" not in run.summary["phases"]  # type: ignore[operator]
    assert (run.summary["late"], run.summary["val_images"], run.summary["val_images_total"]) == (False, 0, 15)


def test_resume_and_replay_keep_scoring_off(data: Path, tmp_path: Path) -> None:
    run = cut(8, KeyboardInterrupt, quick, data, tmp_path / "run", steps=12, scoring=False)
    assert run.summary["stopped"]
    resumed = train(resume=run.path)
    replayed = train(replay=run.path, out=tmp_path / "replayed")
    for one in (resumed, replayed):
        assert (one.summary["val_images"], one.summary["val_images_total"]) == (0, 15)
        assert json.loads((one.path / "model.json").read_text())["training"]["scoring"] is False
    assert replayed.summary["identical"]
    with pytest.raises(UsageError, match="scoring cannot be given with resume"):
        train(resume=run.path, scoring=False)


def test_a_run_recorded_without_the_scoring_option_can_be_resumed(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "data.npz", num=60)
    run = cut(8, KeyboardInterrupt, quick, data, tmp_path / "run", steps=12)
    config = json.loads((run.path / "model.json").read_text())
    del config["training"]["scoring"]
    (run.path / "model.json").write_text(json.dumps(config))
    assert train(resume=run.path).summary["val_images"] == 6
