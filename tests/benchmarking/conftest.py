"""Trials that take no time: a stand-in for the processes that train and evaluate."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from msgspec import structs

from timebox.benchmarking import Benchmark, benchmark
from timebox.benchmarking.trials import FailedTrial, ScoredTrial, Trial, TrialRecord
from timebox.configs.benchmark import BenchmarkConfig
from timebox.recipes import RECIPES
from timebox.run.json_values import from_values

ReadResult = TrialRecord | BaseException
Measure = Callable[..., Benchmark]


def record(label: str, block: int, accuracy: float = 0.5, **changes: object) -> ScoredTrial:
    """What a trial leaves in the log."""
    values = {
        "block": block, "position": 0, "label": label, "seed": block, "command": "timebox train digits",
        "commit": "abc1234", "wall_seconds": 4.5, "late": False, "accuracy": accuracy, "correct": int(accuracy * 180),
        "num_images": 180, "split": "val", "tta": "none", "num_seen_in_training": 0, "evaluation_seconds": 2.0,
        "budget_seconds": 5.0, "images_per_second": 1000.0, "precision": "fp32", "device": "cpu", "threads": 1,
        "train_images": 1617, "versions": {"timebox": "0.1.0"}, "recipe": RECIPES["haet2021"]().as_dict(),
        "elapsed_seconds": 4.4, "phases": {"training": 3.0}, "steps": 100, "epochs": 2.5, "final_lr": 0.0, "plan": (),
        "events": (), **changes,
    }  # fmt: skip
    return from_values(values, ScoredTrial, "a trial of the tests")


def failed(label: str, block: int, message: str = "something broke", status: int = 1) -> FailedTrial:
    return FailedTrial(
        block=block,
        position=0,
        label=label,
        seed=block,
        command="timebox train digits",
        commit=None,
        wall_seconds=1.0,
        failed=message,
        status=status,
    )


class Trials:
    """Stands in for run_trial: remembers the trials, and gives what was put in place for (label, block)."""

    def __init__(self) -> None:
        self.done: list[Trial] = []
        self.outcomes: dict[tuple[str, int], ReadResult] = {}

    def __call__(
        self, config: BenchmarkConfig, trial: Trial, run: Path, seconds_left: float, keep_at: Path | None
    ) -> TrialRecord:
        key = trial.variant.label, trial.block
        outcome = self.outcomes.get(key, record(*key, accuracy=0.5 + trial.block / 100))
        if isinstance(outcome, BaseException):
            raise outcome
        self.done.append(trial)
        return structs.replace(outcome, position=trial.position)

    @property
    def keys(self) -> list[tuple[str, int]]:
        return [(trial.variant.label, trial.block) for trial in self.done]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    fake = Trials()
    monkeypatch.setattr(import_module("timebox.benchmarking.benchmark"), "run_trial", fake)
    return fake


@pytest.fixture
def measure(trials: Trials, tmp_path: Path) -> Measure:
    """measure(recipes=["a", "b"], …): a benchmark on the digits, its trials made up, in tmp_path/bench."""

    def run(**given: object) -> Benchmark:
        started = {"data": "digits", "recipes": ["haet2021", "dawnbench"], "trial_budget": "5s", "seeds": 2}
        given = given if "resume" in given else {**started, "out": tmp_path / "bench", **given}
        return benchmark(**given)  # type: ignore[arg-type]

    return run
