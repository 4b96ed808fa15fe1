"""`timebox benchmark`: what it hands on, what it prints, how it ends; and once with real trainings."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import convert

from budgets import REFUSED, ROOM, smallest_named
from timebox.benchmarking.summary import BenchmarkSummary
from timebox.clock import Deadline
from timebox.errors import OutputError

from .conftest import Command, Replace

FIGURES: dict[str, object] = {
    "recipe": "auto", "n": 5, "mean": 0.80412, "sd": 0.0114, "interval": (0.78996, 0.81828), "num_failed": 0,
    "num_late": 0, "wall_seconds": 58.93, "images_per_second": 900.0,
}  # fmt: skip
OTHER = {**FIGURES, "recipe": "haet2021 width=32", "mean": 0.824, "sd": None, "interval": None, "wall_seconds": None}
COMPARISON: dict[str, object] = {
    "recipe": "haet2021 width=32", "against": "auto", "num_pairs": 5, "mean_difference": 0.0199,
    "interval": (0.01, 0.0298), "p": 0.0049, "p_corrected": 0.0049, "significant": True, "verdict": "better",
}  # fmt: skip
TEST: dict[str, object] = {
    "name": "two-sided paired t-test", "paired_by": "seed and block", "alpha": 0.05, "correction": None, "min_pairs": 5,
}  # fmt: skip
SUMMARY: dict[str, object] = {
    "data": "digits", "score": "val", "trial_budget_seconds": 60.0, "num_trials": 10, "num_done": 10, "num_failed": 0,
    "num_late": 0, "complete_blocks": 5, "stopped": None, "recipes": [FIGURES, OTHER], "comparisons": [COMPARISON],
    "test": TEST, "notes": ["something to know"], "command": "timebox benchmark digits", "budget_seconds": None,
    "elapsed_seconds": 700.0, "late": False,
}  # fmt: skip
TRIAL = {"block": 0, "label": "auto", "accuracy": 0.8}


class FakeBenchmark:
    """Stands in for timebox.benchmark: remembers what it was given."""

    def __init__(self, **changes: object) -> None:
        self.summary = {**SUMMARY, **changes}
        convert(self.summary, BenchmarkSummary)  # raises where it is none
        self.given: dict[str, object] = {}

    def __call__(self, data: str | None, **given: object) -> SimpleNamespace:
        self.given = {"data": data, **given}
        on_trial = given["on_trial"]
        assert callable(on_trial)
        on_trial(TRIAL)
        return SimpleNamespace(path=Path("runs/benchmark-digits"), summary=self.summary, trials=(TRIAL,))


def fake(replace: Replace, **changes: object) -> FakeBenchmark:
    benchmark = FakeBenchmark(**changes)
    replace("timebox.benchmarking.benchmark", benchmark=benchmark)
    return benchmark


def test_figures_comparison_and_notes(timebox: Command, replace: Replace) -> None:
    fake(replace)
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s")
    assert outcome.status == 0
    lines = [line for line in outcome.out.splitlines() if line.strip()]
    assert lines == [
        "  recipe             n     mean    SD   95 % interval    time",
        "  ───────────────────────────────────────────────────────────",
        "  auto               5  80.41 %  1.14  79.00 to 81.83  58.9 s",
        "  haet2021 width=32  5  82.40 %     –               –       –",
        "  against auto       pairs  points   95 % interval      p",
        "  ───────────────────────────────────────────────────────",
        "  haet2021 width=32      5   +1.99  +1.00 to +2.98  0.005",
        "  haet2021 width=32: better",
        "  trials         10 of 10 done, 1m each",
        "  scored         digits, val, outside the trials' time",
        "  test           two-sided paired t-test at 0.05; 5 complete blocks",
        "  note           something to know",
        "  time           11m40s",
        "  benchmark      runs/benchmark-digits",
    ]


def test_json_lines_are_the_trials_and_last_the_summary(timebox: Command, replace: Replace) -> None:
    fake(replace)
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s", "--json")
    trial, summary = [json.loads(line) for line in outcome.out.splitlines()]
    assert trial == TRIAL
    assert summary == json.loads(json.dumps({"benchmark": "runs/benchmark-digits", **SUMMARY}))


def test_what_is_handed_on(timebox: Command, replace: Replace) -> None:
    benchmark = fake(replace)
    timebox("benchmark", "digits", "--trial-budget", "60s", "--budget", "1h")
    defaults = {
        "data": "digits", "recipes": ("auto",), "seeds": 5, "trial_budget": "60s", "settings": (), "score": "val",
        "tta": "recipe", "val": None, "train_limit": None, "split_seed": 0, "coarse": False, "data_dir": None,
        "max_bad_share": 0.1, "device": "auto", "precision": "auto", "out": None, "resume": None, "keep_runs": False,
    }  # fmt: skip
    assert {name: benchmark.given[name] for name in defaults} == defaults
    deadline = benchmark.given["deadline"]
    assert isinstance(deadline, Deadline)
    assert deadline.budget_seconds == 3600
    assert deadline.started_at == Deadline.since_process_start(None).started_at
    timebox(
        "benchmark", "digits", "--trial-budget", "60s", "--recipe", "auto", "--recipe", "haet2021 width=8", "--seeds",
        3, "--set", "tta=none", "--val", "rest", "--train-limit", "5,000", "--keep-runs", "--score", "val",
    )  # fmt: skip
    assert benchmark.given["recipes"] == ("auto", "haet2021 width=8")
    assert (benchmark.given["seeds"], benchmark.given["settings"]) == (3, ("tta=none",))
    assert (benchmark.given["val"], benchmark.given["train_limit"], benchmark.given["keep_runs"]) == (
        "rest",
        5000,
        True,
    )


@pytest.mark.parametrize("flaw", ["num_failed", "num_late"])
def test_a_trial_that_failed_or_was_late_is_status_3_and_is_said(timebox: Command, replace: Replace, flaw: str) -> None:
    fake(replace, **{flaw: 2})
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s")
    assert outcome.status == 3
    assert f"10 of 10 done, 2 {flaw.removeprefix('num_')}, 1m each" in outcome.out


def test_more_than_one_comparison_says_how_p_was_corrected(timebox: Command, replace: Replace) -> None:
    fake(replace, comparisons=[COMPARISON, {**COMPARISON, "p_corrected": 1e-9}], test={**TEST, "correction": "Holm"})
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s")
    for words in ("p, Holm", "<0.001", "at 0.05, Holm-corrected"):
        assert words in outcome.out


def test_one_recipe_is_compared_with_nothing(timebox: Command, replace: Replace) -> None:
    fake(replace, comparisons=[], recipes=[FIGURES])
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s")
    assert "against" not in outcome.out
    assert "t-test" not in outcome.out


def test_it_fits_a_terminal(timebox: Command, replace: Replace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timebox.cli.formatting.results_width", lambda: 80)
    recipe = "haet2021 " + " ".join(f"field_{number}=0.123" for number in range(9))
    fake(replace, recipes=[FIGURES, {**OTHER, "recipe": recipe}], comparisons=[{**COMPARISON, "recipe": recipe}])
    outcome = timebox("benchmark", "digits", "--trial-budget", "60s")
    table = [line for line in outcome.out.splitlines() if "better" not in line]
    assert max(map(len, table)) <= 80
    assert "80.41 %  1.14  79.00 to 81.83  58.9 s" in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trial-budget 60s", "say what to measure on: a path, or a name such as digits"),
        ("digits", "say how long one trial may take, for instance --trial-budget 60s"),
        ("digits --trial-budget 60s --score train", "--score 'train' must be one of val, test"),
        ("digits --trial-budget 60s --seeds 0", "--seeds '0' must be a whole number of at least 1"),
    ],
)
def test_refusals(timebox: Command, words: str, message: str) -> None:
    assert timebox("benchmark", *words.split()) == (2, "", f"timebox benchmark: error: {message}\n")


def test_a_disk_that_fails_once_something_was_measured_is_status_3(timebox: Command, replace: Replace) -> None:
    def benchmark(data: str, **given: object) -> None:
        on_trial = given["on_trial"]
        assert callable(on_trial)
        if given["keep_runs"]:
            on_trial(TRIAL)
        raise OutputError("benchmark 'x' cannot be written to: No space left on device")

    replace("timebox.benchmarking.benchmark", benchmark=benchmark)
    assert timebox("benchmark", "digits", "--trial-budget", "60s").status == 2
    assert timebox("benchmark", "digits", "--trial-budget", "60s", "--keep-runs").status == 3


SMALL = ("--recipe", "haet2021 width=4", "--set", "tta=none", "--device", "cpu")


ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "timebox", "benchmark", *words]


def stopped_after_the_first(out: Path, trial_seconds: float) -> tuple[str, str, str, int]:
    """A benchmark of two trials that is stopped in the second: the line of the first, and how it ended."""
    words = (*SMALL, "--trial-budget", f"{trial_seconds:g}s", "--seeds", "2", "--out", str(out), "--json")
    started = command("digits", *words)
    with subprocess.Popen(
        started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        return first, *process.communicate(), process.returncode


@pytest.mark.endurance
@pytest.mark.integration
def test_real_trials_are_stopped_by_a_signal_and_gone_on_with(tmp_path: Path) -> None:
    out = tmp_path / "bench"
    line, rest, err, status = stopped_after_the_first(out, 10.0)
    if status == REFUSED:  # this machine is too slow, or too busy, for such trials
        line, rest, err, status = stopped_after_the_first(out, ROOM * smallest_named(err))
    assert status == 143, err
    first = json.loads(line)
    assert f"stopped: 1 of 2 trials are done and kept; the others: timebox benchmark --resume {out}" in err
    assert json.loads(rest)["stopped"] == "signal"
    check_trial(first)
    assert {path.name for path in out.iterdir()} == {"benchmark.json", "trials.jsonl", "summary.json", "recipes"}

    done = subprocess.run(command("--resume", str(out), "--json"), capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    trial, summary = [json.loads(line) for line in done.stdout.splitlines()]
    check_trial(trial)
    assert (first["seed"], trial["seed"]) == (0, 1)
    assert [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()] == [first, trial]
    assert (summary["num_done"], summary["stopped"], summary["recipes"][0]["n"]) == (2, None, 2)
    assert (out / "recipes" / "haet2021-width=4.toml").is_file()
    assert {path.name for path in out.iterdir()} == {"benchmark.json", "trials.jsonl", "summary.json", "recipes"}


def check_trial(trial: Mapping[str, object]) -> None:
    assert (trial["num_images"], trial["split"], trial["num_seen_in_training"], trial["late"]) == (180, "val", 0, False)
    assert trial["accuracy"] == pytest.approx(float(str(trial["correct"])) / 180)
    assert trial["train_images"] == 1617
    assert 0 < float(str(trial["wall_seconds"])) <= float(str(trial["budget_seconds"]))
