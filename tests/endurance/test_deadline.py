"""No run is late, whatever happens to it: busy neighbours, SIGSTOP, a slow disk, ten times as much to score.

`python tests/endurance/deadline.py` measures the same for a record, and also 120 s budgets and first runs in a fresh
environment, which need an installation.
"""

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import deadline
from deadline import Cell
from deadlines.disturbances import Installation
from deadlines.report import broken_promises, misses, read_records
from scale import scaled

pytestmark = pytest.mark.timeout(300)

SCENARIOS = ("idle", "busy", "stopped", "large-val", "slow-disk", "slowing-disk", "slow-save")


class TrainingJob(NamedTuple):
    """Data, cut to so many training images, and a budget."""

    data: str
    num_train: int
    budget_seconds: float


# Scoring stops at a tenth of the budget, after the batch that it is at.
LAST_BATCH_SECONDS = 1.0
# CIFAR-10 is skipped where it does not lie beside the repository.
TASKS = (TrainingJob("digits", 1000, 10.0), TrainingJob("cifar10", 5000, 10.0), TrainingJob("cifar10", 5000, 30.0))


@pytest.fixture(autouse=True)
def all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run takes as many threads as it does for a user."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def installation() -> Iterator[Installation]:
    made = Installation(None)
    yield made
    made.remove()


@pytest.mark.parametrize("repeat", scaled(1))
@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.data}-{task.budget_seconds:g}s")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_is_not_late(
    scenario: str, task: TrainingJob, repeat: int, real_data: Callable[[str], Path], installation: Installation
) -> None:
    data = task.data if task.data == "digits" else str(real_data(task.data))
    arguments = Namespace(data=data, train_limit=task.num_train, test=None, options=[], seed=0)
    record = deadline.run(Cell(scenario, task.budget_seconds, repeat), arguments, installation)
    found = broken_promises(record)
    assert not found, f"{found}; this process stood still for {record.stalled_seconds} s\n{record.stderr}"
    if record.figures is not None:
        scoring_seconds = record.figures.scoring_share * task.budget_seconds
        assert scoring_seconds <= 0.1 * task.budget_seconds + LAST_BATCH_SECONDS
    if record.refused:
        pytest.skip(f"this machine is too slow, or too busy now: {record.stderr.splitlines()[-1]}")


def test_a_benchmark_that_was_broken_off_goes_on_with_its_results(tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [sys.executable, deadline.__file__, "--data", "digits", "--train-limit", "1000"]
    command += ["--budgets", "15", "--repeats", "1", "--scenarios", "stopped", "slow-disk", "--out", str(results)]
    done = subprocess.run(command, capture_output=True, text=True)
    records = read_records(results)
    assert " late of 2 runs, " in done.stdout, done.stdout + done.stderr
    assert {record.scenario for record in records} == {"stopped", "slow-disk"}
    assert done.returncode == any(misses(record) for record in records)
    for record in records:
        assert not broken_promises(record), record.stderr
        if record.figures is not None:
            assert 0 <= record.wall_seconds - record.figures.elapsed_seconds + 0.02 < 3
            assert record.scenario != "stopped" or {"moment", "note"} & set(record.disturbance)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.stdout == done.stdout
    assert read_records(results) == records
