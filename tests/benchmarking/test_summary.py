"""What is said of the trials beside the figures."""

from collections.abc import Sequence

import pytest

from timebox.benchmarking import summary as module
from timebox.benchmarking.summary import progress_line
from timebox.benchmarking.trials import TrialRecord
from timebox.clock import Deadline
from timebox.configs.benchmark import BenchmarkConfig
from timebox.recipes import RECIPES
from timebox.run.json_values import to_values

from .conftest import failed, record
from .test_config import CONFIG

A, B = "auto", "haet2021 width=32 max_lr=0.4"
ACCURACIES = {A: (0.80, 0.81, 0.79, 0.80, 0.82), B: (0.82, 0.82, 0.82, 0.83, 0.83)}
CONFIG5 = CONFIG.replace(seeds=5)
RECORDS = [record(label, block, ACCURACIES[label][block]) for block in range(5) for label in (A, B)]


def summarise(config: BenchmarkConfig, trials: Sequence[TrialRecord], stopped: str | None) -> dict[str, object]:
    return to_values(module.summarise(config, trials, "timebox benchmark", Deadline(None), stopped))


def test_figures_and_comparison() -> None:
    summary = summarise(CONFIG5, RECORDS, None)
    assert (summary["num_trials"], summary["num_done"], summary["num_failed"], summary["num_late"]) == (10, 10, 0, 0)
    assert (summary["complete_blocks"], summary["stopped"], summary["notes"]) == (5, None, [])
    first, second = summary["recipes"]  # type: ignore[misc]
    assert (first["recipe"], first["n"], first["num_failed"], first["wall_seconds"]) == (A, 5, 0, 4.5)  # type: ignore[index]
    assert first["mean"] == pytest.approx(0.804)  # type: ignore[index]
    assert second["mean"] == pytest.approx(0.824)  # type: ignore[index]
    (comparison,) = summary["comparisons"]  # type: ignore[misc]
    assert (comparison["num_pairs"], comparison["verdict"]) == (5, "better")  # type: ignore[index]
    assert summary["test"] == {
        "name": "two-sided paired t-test",
        "paired_by": "seed and block",
        "alpha": 0.05,
        "correction": None,
        "min_pairs": 5,
    }


def test_more_than_one_comparison_is_corrected_and_says_so() -> None:
    config = CONFIG5.replace(recipes=("auto", "haet2021", "dawnbench"))
    assert summarise(config, [], None)["test"]["correction"] == "Holm"  # type: ignore[index]


def test_pairs_are_of_blocks_in_which_every_recipe_was_tried() -> None:
    """A failure is an outcome: the others of its block are still compared."""
    config = CONFIG5.replace(recipes=("auto", "haet2021", "dawnbench"), seeds=2)
    records = [
        record("auto", 0), record("haet2021", 0), failed("dawnbench", 0),
        record("auto", 1), record("haet2021", 1),
    ]  # fmt: skip
    summary = summarise(config, records, "budget")
    assert summary["complete_blocks"] == 1
    assert [one["num_pairs"] for one in summary["comparisons"]] == [1, 0]  # type: ignore[attr-defined]
    assert summary["notes"] == [
        "1 incomplete block is kept in the log and left out of the paired test",
        "failed: dawnbench, seed 0: something broke",
    ]


def test_what_differs_between_trials_is_told() -> None:
    wide = {**RECIPES["haet2021"]().as_dict(), "width": 32, "batch_size": 64}
    changed = [
        record(A, 1, 0.81, recipe=wide, precision="bf16"),
        record(B, 1, 0.81, commit="def5678", versions={"timebox": "0.2.0"}, threads=2),
    ]
    summary = summarise(CONFIG5, [*RECORDS, *changed], None)
    assert summary["notes"] == [
        "the trials are of different commits of timebox: abc1234; def5678",
        "the trials are of different versions: timebox 0.1.0; timebox 0.2.0",
        "the trials are of different thread counts: 1; 2",
        "auto was not planned alike in all trials: width 64, 32; batch_size 512, 64; precision fp32, bf16",
    ]


def test_images_scored_that_were_trained_on_are_told() -> None:
    (note,) = summarise(CONFIG5, [*RECORDS, record(A, 0, num_seen_in_training=7)], None)["notes"]  # type: ignore[misc]
    assert note.startswith("7 of the images scored are")


def test_without_any_trial() -> None:
    summary = summarise(CONFIG5, [], "signal")
    assert [one["n"] for one in summary["recipes"]] == [0, 0]  # type: ignore[attr-defined]
    assert summary["comparisons"][0]["verdict"] == "not tested: 0 complete pairs, the test needs 5"  # type: ignore[index]


def test_progress() -> None:
    assert progress_line(record("auto", 2, 0.0512), 7, 10, 8, 95.0) == (
        " 7/10  auto      seed 2    5.12 %  4.5 s  1m35s left"
    )
    assert (
        progress_line(record("auto", 2, 1.0, late=True), 10, 10, 4, 0.0) == "10/10  auto  seed 2  100.00 %  4.5 s  LATE"
    )
    assert progress_line(failed("auto", 2), 9, 9, 4, 0.0) == "9/9  auto  seed 2  failed: something broke"
