"""summary.json: damaged values are left out, keys of newer versions are kept."""

import json
import shutil
from pathlib import Path

import pytest

from timebox.distributed.heartbeat import RankInfo
from timebox.run import Run
from timebox.run.ranks_file import RanksRecord, record_rank_failures
from timebox.run.summary import uncalibrated_reason, valid_summary


@pytest.mark.parametrize(
    "damaged",
    [
        {"val_accuracy": 3.0}, {"test_accuracy": -0.1}, {"test_accuracy": "high"}, {"steps": -1}, {"temperature": 9.0},
        {"temperature": 0.0}, {"phases": {"reading": "long"}}, {"late": 1}, {"notes": "none"}, {"recipe": [1]},
        {"stopped": True, "rank_failures": [1]}, {"stopped": True, "val_accuracy": 3.0},
    ],
)  # fmt: skip
def test_a_damaged_value_is_left_out(damaged: dict[str, object]) -> None:
    whole = {"device": "cpu", "budget_seconds": None, "novel": [1], **damaged}
    (*_, last) = damaged
    assert valid_summary(whole) == {key: value for key, value in whole.items() if key != last}


def test_a_run_with_damaged_scores_predicts_without_them(trained: Run, tmp_path: Path) -> None:
    path = Path(shutil.copytree(trained.path, tmp_path / "copy"))
    summary = json.loads((path / "summary.json").read_text())
    (path / "summary.json").write_text(json.dumps({**summary, "val_accuracy": 3.0, "temperature": 99.0}))
    run = Run(path)
    assert (run.val_accuracy, run.temperature, run.test_accuracy) == (None, 1.0, trained.test_accuracy)
    assert "val_accuracy" not in run.summary
    assert run.summary["steps"] == summary["steps"]


def test_keys_of_a_newer_version_are_kept_when_rank_failures_are_recorded(tmp_path: Path) -> None:
    RanksRecord.new([RankInfo(0, "here", 100, 1.0, "cpu", 1)], 5.0).save(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": 2, "stopped": true, "novel": {"a": 1}}')
    record_rank_failures(tmp_path, ["rank 1"])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"format": 2, "stopped": True, "novel": {"a": 1}, "rank_failures": ["rank 1"]}


@pytest.mark.parametrize(
    ("num_scored", "num_images", "reason"),
    [
        (0, 0, "the run had no validation images to fit a temperature on"),
        (
            10,
            10,
            "the run scored 10 of 10 validation images, and 20 or more are needed to fit a temperature",
        ),
        (
            19,
            5000,
            "the run scored 19 of 5,000 validation images, and 20 or more are needed to fit a temperature",
        ),
        (0, 5000, "there was no time to score any of the 5,000 validation images"),
        (20, 20, None),
        (20, 5000, None),
    ],
)
def test_the_reason_for_no_temperature(num_scored: int, num_images: int, reason: str | None) -> None:
    assert uncalibrated_reason({"val_images": num_scored, "val_images_total": num_images}) == reason


def test_the_reason_for_no_temperature_of_other_runs(trained: Run) -> None:
    assert uncalibrated_reason({}) == "the run ended before it was scored"
    assert uncalibrated_reason({"stopped": True}) == "the run ended before it was scored"
    assert uncalibrated_reason({"temperature": 1.3}) is None
    unscored = {"val_images": 0, "val_images_total": 13, "temperature": None}
    assert uncalibrated_reason(unscored, is_scored=False) == "the run was trained without scoring any images"
    assert trained.uncalibrated_reason == (
        "the run scored 13 of 13 validation images, and 20 or more are needed to fit a temperature"
    )
