"""One trial: the commands it is made of, what is kept of them, and what happens when they fail or hang."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from timebox.benchmarking import trials
from timebox.benchmarking.trials import CutOffError, Trial, evaluate_command, run_trial, schedule, train_command
from timebox.cli import parse
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.errors import OutputError
from timebox.run.json_values import to_values

from .test_config import CONFIG

PYTHON = sys.executable
Record = dict[str, object]
TRIAL = Trial(3, 1, RecipeVariant.parse("haet2021 width=32"))
TRAINED = {
    "recipe": {"name": "haet2021", "width": 32}, "late": False, "elapsed_seconds": 4.2, "steps": 99,
    "budget_seconds": 5.0, "phases": {}, "epochs": 2.5, "images_per_second": 900.0, "final_lr": 0.0, "train_images": 4,
    "precision": "fp32", "device": "cpu", "threads": 1, "plan": [], "events": [], "versions": {},
}  # fmt: skip
EVALUATED = {
    "accuracy": 0.75, "num_images": 4, "split": "val", "tta": "none", "num_seen_in_training": 0,
    "num_correct": 3, "classes": [],
}  # fmt: skip


class Commands:
    """Stands in for the processes: remembers their words, and gives the outcomes put in place."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.train = trials._CommandResult(0, TRAINED, "done", 4.5)
        self.evaluate = trials._CommandResult(0, EVALUATED, "done", 1.25)

    def __call__(self, words: Sequence[str], *rest: float) -> trials._CommandResult:
        self.words.append(list(words))
        if words[0] == "evaluate":
            return self.evaluate
        Path(words[words.index("--out") + 1]).mkdir(parents=True)
        return self.train


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    fake = Commands()
    monkeypatch.setattr(trials, "_run_timebox", fake)
    return fake


@pytest.fixture
def carry(tmp_path: Path) -> Callable[..., Record]:
    def run(config: BenchmarkConfig = CONFIG.replace(trial_budget="5s"), keep_at: Path | None = None) -> Record:  # noqa: B008
        return to_values(run_trial(config, TRIAL, tmp_path / "run", float("inf"), keep_at))

    return run


@pytest.mark.parametrize("num_contenders", [1, 2, 3, 5])
def test_every_contender_has_every_place_as_often(num_contenders: int) -> None:
    variants = [RecipeVariant(str(number), "auto", ()) for number in range(num_contenders)]
    order = list(schedule(variants, 2 * num_contenders))
    assert [trial.block for trial in order] == [block for block in range(2 * num_contenders) for _ in variants]
    for variant in variants:
        places = sorted(trial.position for trial in order if trial.variant == variant)
        assert places == sorted([*range(num_contenders)] * 2)


def test_the_words_of_a_training_are_understood_by_it() -> None:
    config = CONFIG.replace(
        train_limit=500, split_seed=3, coarse=True, data_dir="/sets", device="cpu", precision="fp32",
        max_bad_share=0.2, data="/photos",
    )  # fmt: skip
    args = parse(train_command(config, TRIAL, Path("/out/run")))
    given = {
        "data": "/photos", "budget": 60.0, "recipe": "haet2021", "settings": ("width=16", "tta=none", "width=32"),
        "train_limit": 500, "split_seed": 3, "coarse": True, "data_dir": "/sets", "device": "cpu",
        "precision": "fp32", "max_bad_share": 0.2, "val": "rest", "test": "none", "scoring": False, "seed": 3,
        "out": "/out/run",
    }  # fmt: skip
    assert {name: getattr(args.config, name) for name in given} == given
    assert args.json


def test_the_words_of_an_evaluation_are_understood_by_it() -> None:
    config = CONFIG.replace(score="test", tta="mirror", data_dir="/sets", device="cpu", max_bad_share=0.2)
    args = parse(evaluate_command(config, Path("/out/run")))
    given = {
        "run": "/out/run", "data": "digits", "split": "test", "tta": "mirror", "data_dir": "/sets",
        "device": "cpu", "max_bad_share": 0.2,
    }  # fmt: skip
    assert {name: getattr(args.config, name) for name in given} == given
    assert args.json


def test_by_default_few_words_are_needed() -> None:
    words = train_command(CONFIG.replace(settings=()), TRIAL, Path("run"))
    assert " ".join(words) == (
        "train digits --budget 60s --recipe haet2021 --set width=32 --init scratch --seed 3 --test none --no-scoring "
        "--out run --json"
    )
    for_a_record = train_command(CONFIG.replace(settings=(), score="test"), TRIAL, Path("run"))
    assert "--val none --test none --no-scoring" in " ".join(for_a_record)


def test_what_is_kept_of_a_trial(carry: Callable[..., Record], commands: Commands, tmp_path: Path) -> None:
    record = carry()
    assert record["command"] == (
        "timebox train digits --budget 5s --recipe haet2021 --set width=16 --set tta=none --set width=32 "
        "--init scratch --seed 3 --test none --no-scoring"
    )
    assert {name: record[name] for name in ("block", "position", "label", "seed")} == {
        "block": 3, "position": 1, "label": "haet2021 width=32", "seed": 3,
    }  # fmt: skip
    assert (record["accuracy"], record["correct"], record["num_images"]) == (0.75, 3, 4)
    assert (record["wall_seconds"], record["evaluation_seconds"], record["late"]) == (4.5, 1.25, False)
    assert (record["recipe"], record["steps"]) == (TRAINED["recipe"], 99)
    assert "failed" not in record
    assert not (tmp_path / "run").exists()


def test_runs_can_be_kept(carry: Callable[..., Record], commands: Commands, tmp_path: Path) -> None:
    carry(keep_at=tmp_path / "runs" / "kept")
    assert (tmp_path / "runs" / "kept").is_dir()
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be kept"):
        carry(keep_at=tmp_path / "file" / "kept")


def test_late_is_what_the_outside_sees_too(carry: Callable[..., Record], commands: Commands) -> None:
    commands.train = replace(commands.train, seconds=5.01)
    assert carry()["late"] is True
    commands.train = replace(commands.train, seconds=4.9, status=3, output={**TRAINED, "late": True})
    record = carry()
    assert (record["late"], record["accuracy"]) == (True, 0.75)


def test_a_training_that_fails(carry: Callable[..., Record], commands: Commands, tmp_path: Path) -> None:
    commands.train = trials._CommandResult(2, {"error": "no"}, "no such path", 1.0)
    record = carry()
    assert (record["failed"], record["status"], record["wall_seconds"]) == ("no such path", 2, 1.0)
    assert "accuracy" not in record
    assert len(commands.words) == 1, "there is nothing to score"
    assert not (tmp_path / "run").exists()


def test_a_model_that_could_not_be_written_is_a_failure(carry: Callable[..., Record], commands: Commands) -> None:
    commands.train = trials._CommandResult(3, {"error": "disk full"}, "disk full", 4.0)
    assert carry()["failed"] == "disk full"


def test_an_evaluation_that_fails(carry: Callable[..., Record], commands: Commands, tmp_path: Path) -> None:
    commands.evaluate = trials._CommandResult(1, {}, "internal error", 1.0)
    record = carry()
    assert (record["failed"], record["status"], record["late"]) == ("internal error", 1, False)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """python(code): what is run in place of the interpreter."""

    def put(code: str) -> None:
        script = tmp_path / "python"
        program = tmp_path / "program.py"
        program.write_text(code)
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(PYTHON)} {shlex.quote(str(program))} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return put


pytestmark = pytest.mark.skipif(os.name != "posix", reason="a script as interpreter")


def test_an_outcome_is_the_json_the_status_and_the_last_words(python: Callable[[str], None]) -> None:
    python(
        "import sys; print('{\"a\": 1}'); sys.stderr.write('0.1s reading\\ntimebox train: error: no\\n'); sys.exit(2)"
    )
    outcome = trials._run_timebox(["train"], float("inf"))
    assert (outcome.status, outcome.output, outcome.message) == (2, {"a": 1}, "no")
    assert outcome.seconds > 0
    python("print('nonsense')")
    outcome = trials._run_timebox(["train"], float("inf"))
    assert (outcome.status, outcome.output, outcome.message) == (0, {}, "it ended with status 0")


@pytest.mark.integration
def test_one_that_hangs_is_stopped(python: Callable[[str], None], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    noted = f"with open({str(pid)!r}, 'w') as file:\n    file.write(str(os.getpid()))"
    python(f"import os, time\n{noted}\ntime.sleep(10_000)")
    outcome = trials._run_timebox(["train"], float("inf"), max_seconds=5)
    assert (outcome.status, outcome.message) == (-1, "it did not end within 5 s and was stopped")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_one_that_outlives_the_benchmark_is_cut_off(python: Callable[[str], None]) -> None:
    python("import time; time.sleep(10_000)")
    with pytest.raises(CutOffError):
        trials._run_timebox(["train"], trials.now() + 0.3)
