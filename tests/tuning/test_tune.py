"""Whole short searches: their files, resuming after a kill, refused arguments."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from small_runs import SMALL, save_npz
from timebox.errors import BudgetError, RunError, UsageError
from timebox.recipes import parse_recipe
from timebox.run import load
from timebox.tuning import Tuned, tune
from timebox.tuning import study as studies
from timebox.tuning.storage import open_storage
from timebox.tuning.study import WORKER

from .conftest import arguments, lines_of, trial_seconds
from .pace import end_early, num_measured


def check_complete(tuned: Tuned) -> None:
    """Check the files and the deadline of a finished search."""
    assert not tuned.summary["late"]
    files = {file.name for file in tuned.path.iterdir()}
    assert {"best.toml", "trials.jsonl", "tune.html", "summary.json", "final", "journal.log"} <= files
    assert json.loads((tuned.path / "summary.json").read_text()) == json.loads(json.dumps(tuned.summary))
    best = parse_recipe(str(tuned.path / "best.toml")).fixed
    assert best is not None
    assert best.replace(name="x") == load(tuned.path / "final").recipe.replace(name="x")
    searched = [line for line in lines_of(tuned.path) if line["phase"] == "search"]
    assert [line["trial"] for line in searched] == list(range(len(searched)))


@pytest.mark.integration
@pytest.mark.endurance
def test_a_whole_search_with_a_killed_worker(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    end_early(monkeypatch, lambda lines: bool(killed) and num_measured(lines) >= 3, trial_seconds())

    def notify(line: str) -> None:
        """Kill the worker during its second trial."""
        if line.startswith("trial   0") and not killed:
            study = optuna.load_study(study_name=None, storage=open_storage(str(tmp_path / "tune" / "journal.log")))
            while not any(WORKER in trial.user_attrs for trial in studies.running_trials(study)):
                time.sleep(0.01)
            (pid,) = children(os.getpid())
            os.kill(pid, signal.SIGKILL)
            killed.append(line)

    tuned = tune(data, notify=notify, **arguments(space, tmp_path / "tune"))
    assert killed
    check_complete(tuned)
    lines = lines_of(tuned.path)
    (again,) = (line for line in lines if line.get("retry_of") is not None)
    (lost,) = (line for line in lines if line["phase"] == "search" and line["trial"] == again["retry_of"])
    assert (lost["state"], lost["params"]) == ("failed", again["params"])
    assert tuned.run.summary["train_images"] == 300  # the final run trains on the validation images too
    assert tuned.summary["final"]["test_images"] == 60
    assert lines[0]["settings"] == []
    assert lines[0]["trainings"][0]["train_images"] < 240
    assert "<svg" in (tuned.path / "tune.html").read_text()


def children(pid: int) -> list[int]:
    """Process ids of the workers of a search."""
    started = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in started if b"tuning.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]


PROGRAM = """
import json, sys
from timebox.tuning import tune
sys.modules["timebox.configs.tune"].MIN_TRIAL_SECONDS = float(sys.argv[1])
tune(**json.loads(sys.argv[2]), notify=lambda line: print(line, file=sys.stderr, flush=True))
"""


def run_and_kill(options: dict[str, Any], until: Callable[[str], bool]) -> list[str]:
    """Run a search in a process, kill it after a line of its output and wait for its workers; returns the lines."""
    words = [str(trial_seconds()), json.dumps(options, default=str)]
    lines = []
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line.rstrip())
            if until(line):
                break
        workers = children(process.pid)
        process.kill()
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        time.sleep(0.05)
    return lines


@pytest.mark.integration
def test_a_killed_and_resumed_search_loses_no_trial(
    data: Path, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "tune"
    end_early(monkeypatch, lambda lines: num_measured(lines) >= 3, trial_seconds())
    lines = run_and_kill({"data": data, **arguments(space, out)}, lambda line: line.startswith("trial   1"))
    assert any(line.startswith("trial   1") for line in lines), lines
    before = {line["trial"]: line for line in lines_of(out)}
    again: list[str] = []
    used = json.loads((out / "clock.json").read_text())["elapsed_seconds"]
    assert used > 0
    tuned = tune(resume=out, notify=again.append)
    check_complete(tuned)
    assert tuned.summary["elapsed_seconds"] > used
    after = {line["trial"]: line for line in lines_of(out) if line["phase"] == "search"}
    assert {number: after[number] for number in before} == before
    assert not any(line.startswith(("trial   0", "trial   1 ")) for line in again)
    unfinished = [line for line in after.values() if line["state"] == "failed" and line["trial"] not in before]
    assert all(any(line["retry_of"] == lost["trial"] for line in after.values()) for lost in unfinished[:1])
    with pytest.raises(UsageError, match="data cannot be given with resume"):
        tune(data, resume=out)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"budget": None}, UsageError, "give a budget"),
        ({"budget": "5s"}, BudgetError, "too short for a search"),
        ({"trial_budget": "1s"}, BudgetError, "must be between"),
        ({"trial_budget": "200s"}, BudgetError, "a 15th of the budget"),
        ({"recipe": "nothing"}, UsageError, "nothing"),
        ({"settings": ("widht=3",)}, UsageError, "width"),
        ({"space": "none.toml"}, UsageError, "cannot be read"),
        ({"sampler": "oracle"}, UsageError, "tpe, random"),
        ({"workers": 0}, UsageError, "at least 1"),
        ({"storage": "trials.db"}, UsageError, "must be a URL"),
        ({"storage": "postgresql://me:secret@127.0.0.1:9/x"}, UsageError, r"me:\*\*\*@"),
        ({"val": "none"}, UsageError, "no images to compare trials by"),
        ({"data": "nowhere"}, ValueError, "nowhere"),
        ({"data": None}, UsageError, "say what to train on"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    data: Path, space: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        tune(**{"data": data, **arguments(space, tmp_path / "tune"), **options})
    assert not (tmp_path / "tune").exists()


@pytest.mark.integration
def test_a_recipe_that_does_not_fit_the_data_is_refused_by_the_first_trial(
    data: Path, space: Path, tmp_path: Path
) -> None:
    settings: Sequence[str] = (*SMALL, "batch_size=60000", "min_steps=1")
    with pytest.raises(UsageError):
        tune(data, **arguments(space, tmp_path / "tune", settings=settings))


def test_resuming_a_damaged_or_missing_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no directory of a search"):
        tune(resume=tmp_path)
    (tmp_path / "tune.json").write_text('{"version": "0.0.1", "asked": {}}')
    with pytest.raises(RunError, match="is damaged: object missing required field data at config"):
        tune(resume=tmp_path)
    (tmp_path / "tune.json").write_text('{"format": 3, "config": {}}')
    with pytest.raises(RunError, match="has format 3; this version of timebox reads formats up to 2"):
        tune(resume=tmp_path)


@pytest.mark.integration
def test_a_study_of_other_data_is_refused(data: Path, space: Path, tmp_path: Path) -> None:
    from timebox.tuning.worker import WorkerConfig, run_worker

    out = tmp_path / "tune"
    run_and_kill({"data": data, **arguments(space, out)}, lambda line: "fields are searched" in line)
    journal = str(out / "journal.log")
    (name,) = (study.study_name for study in optuna.get_all_study_summaries(open_storage(journal)))
    other = save_npz(tmp_path / "other.npz", 330)
    with pytest.raises(UsageError, match="of other data"):
        run_worker(WorkerConfig(storage=journal, study=name, name="worker", data=str(other), device="cpu"))
