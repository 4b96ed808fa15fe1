"""`timebox train --callback package.module:Name`, alone and under torchrun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from budgets import within_budget
from small_runs import SMALL
from timebox.cli import parse
from timebox.cli.exit_status import REFUSED
from timebox.clock import now
from timebox.configs.arguments import to_arguments
from timebox.errors import BudgetError

CODE = """
import os
import time
from pathlib import Path

class Writing:
    def __init__(self):
        self.steps = []

    def on_step(self, step):
        self.steps.append(step.step)

    def on_end(self, end):
        rank = os.environ.get("RANK", "none")
        Path(f"rank-{rank}.txt").write_text(f"{self.steps} {end.is_finished}")

def make():
    return Writing()

class Hanging:
    def on_end(self, end):
        time.sleep(1000)
"""
TRAIN = (
    *("train", "digits", "--test", "0.2", "--recipe", "haet2021", "--device", "cpu", "--precision", "fp32"),
    *(word for field in SMALL for word in ("--set", field)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module `my_code`."""
    (tmp_path / "my_code.py").write_text(CODE)
    return tmp_path


def timebox(folder: Path, *words: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, "-m", "timebox", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_option_may_be_repeated_and_is_not_in_the_command_of_a_run() -> None:
    config = parse(["train", "digits", "--steps", "3", "--callback", "a:B", "--callback", "c.d:e"]).config
    assert config.callbacks == ("a:B", "c.d:e")
    assert parse(["train", *to_arguments(config)]).config == config
    assert config.command(None) == "timebox train digits --steps 3"


def test_callbacks_may_be_given_beside_resume_and_replay() -> None:
    for verb in ("--resume", "--replay"):
        assert parse(["train", verb, "runs/a", "--callback", "a:B"]).config.callbacks == ("a:B",)


@pytest.mark.integration
def test_callbacks_of_the_current_folder(folder: Path) -> None:
    names = ("--callback", "my_code:make", "--callback", "my_code:Writing")
    done = timebox(folder, *TRAIN, "--steps", 4, "--out", "run", *names, "--json")
    assert done.returncode == 0, done.stderr
    assert (folder / "rank-none.txt").read_text() == "[1, 2, 3, 4] True"
    assert "callback" not in json.loads(done.stdout)["command"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my_code", "the callback 'my_code' must be written package.module:Name, as in my_code:MyName"),
        ("my_cod:Writing", "there is no module 'my_cod' in the current folder or among the installed packages"),
        ("my_code:Writin", "my_code has no 'Writin'; did you mean 'Writing'?"),
        ("my_code:CODE", "my_code has no 'CODE'"),
        ("os:sep", "the callback str has none of the methods of a callback: on_plan, on_step, on_validation"),
    ],
)
def test_refusals(folder: Path, name: str, reason: str) -> None:
    done = timebox(folder, *TRAIN, "--steps", 4, "--out", "run", "--callback", name)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len([line for line in done.stderr.splitlines() if "error" in line]) == 1
    assert not (folder / "run").exists()


@pytest.mark.integration
def test_a_callback_that_hangs_does_not_keep_the_command_beyond_its_deadline(folder: Path) -> None:

    def timed(budget: float) -> tuple[subprocess.CompletedProcess[str], float]:
        began = now()
        words = ("--budget", f"{budget:g}s", "--out", "run", "--callback", "my_code:Hanging", "--json")
        done = timebox(folder, *TRAIN, *words)
        if done.returncode == REFUSED:
            raise BudgetError(done.stderr)
        return done, now() - began

    (done, seconds), budget = within_budget(timed, 20.0)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["late"] is False
    assert seconds <= budget
    assert "on_end of the callback Hanging has not returned in time: it is left behind" in done.stderr


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="tested with gloo on Linux")
def test_only_rank_0_has_callbacks(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = (*TRAIN, "--set", "ghost_size=16", "--steps", 4, "--out", "run", "--callback", "my_code:Writing")
    done = timebox(folder, *words, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in folder.glob("rank-*")) == ["rank-0.txt"]
    assert (folder / "rank-0.txt").read_text() == "[1, 2, 3, 4] True"
