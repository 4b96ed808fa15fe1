"""A budget too short is refused soon, with one that then works, in one step."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from budgets import smallest_named
from timebox.cli.exit_status import DONE, REFUSED
from timebox.planning.budget import ELAPSED_MARGIN

# Between the data being read and the refusal. Two seconds are promised; tests share the machine with each other.
MAX_REFUSAL_SECONDS = 5.0
STAMPS = re.compile(r"^ *(\d+\.\d)s  \w", re.MULTILINE)
STAMP = re.compile(r"^ *(\d+\.\d)s  planning$", re.MULTILINE)
REFUSAL = re.compile(r"planning took (\d+\.\d|\d+)s, and 10 steps take about .*s here; use at least \d+s$")

pytestmark = pytest.mark.integration


def train(data: str, budget: float, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "timebox", "train", data, "--budget", f"{budget:g}s", "--device", "cpu", *words]
    return subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)


def is_slower(refused: subprocess.CompletedProcess[str], before: subprocess.CompletedProcess[str]) -> bool:
    """Whether a second command took longer to its refusal than the first one by more than the budget's margin: other
    programs have come, and the budget was named without them."""
    seconds = [max(map(float, STAMPS.findall(one.stderr)), default=0.0) for one in (before, refused)]
    return seconds[1] > ELAPSED_MARGIN * seconds[0]


def check_named_budget(refused: subprocess.CompletedProcess[str], run: Callable[[float], Any]) -> None:
    """The budget that a refusal names works; where the machine is slower by then, the next one that is named."""
    for _ in range(3):
        ended = run(smallest_named(refused.stderr.splitlines()[-1]))
        if ended.returncode != REFUSED or not is_slower(ended, refused):
            break
        refused = ended
    assert ended.returncode == DONE, ended.stderr


def refused_in_planning(data: str, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The refusal of two seconds; of more where reading alone takes as long, as beside other programs it may."""
    for budget in (2.0, 4.0, 8.0, 16.0):
        refused = train(data, budget, out, *words)
        if refused.returncode == DONE and budget > 2.0:
            pytest.skip("the machine became much faster during this test")
        assert refused.returncode == REFUSED, refused.stderr
        if REFUSAL.search(refused.stderr):
            break
    return refused


def check(data: str, out: Path, *words: str) -> None:
    """A budget of a few seconds is refused, with one that works."""
    refused = refused_in_planning(data, out, *words)
    found = REFUSAL.search(refused.stderr)
    assert found, refused.stderr
    planning = STAMP.search(refused.stderr)
    assert planning, refused.stderr
    assert float(found[1]) - float(planning[1]) < MAX_REFUSAL_SECONDS
    assert not out.exists()
    check_named_budget(refused, lambda seconds: train(data, seconds, out, *words))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for shade, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(100 * shade, 100 * shade + 150, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


HAET = ("--recipe", "haet2021", "--set", "width=16")
AIRBENCH = ("--recipe", "airbench94", "--precision", "fp32")
RECIPES = pytest.mark.parametrize(
    "words",
    [(), pytest.param(HAET, marks=pytest.mark.endurance), pytest.param(AIRBENCH, marks=pytest.mark.endurance)],
)


@RECIPES
def test_a_few_photos(photos: str, words: tuple[str, ...], tmp_path: Path) -> None:
    check(photos, tmp_path / "run", *words)


@RECIPES
def test_digits(words: tuple[str, ...], tmp_path: Path) -> None:
    check("digits", tmp_path / "run", "--test", "0.2", *words)


@RECIPES
def test_cifar10(words: tuple[str, ...], tmp_path: Path, real_data: Callable[[str], Path]) -> None:
    check(str(real_data("cifar10")), tmp_path / "run", *words)


def test_a_trial_of_a_benchmark(photos: str, tmp_path: Path) -> None:
    def benchmark(seconds: float, out: Path) -> subprocess.CompletedProcess[str]:
        words = ["benchmark", photos, "--seeds", "1", "--trial-budget", f"{seconds:g}s", "--device", "cpu"]
        command = [sys.executable, "-m", "timebox", *words, "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = benchmark(1.0, tmp_path / "refused")
    assert refused.returncode == REFUSED
    line = refused.stderr.splitlines()[-1]
    assert "every recipe was refused: budget 1.0s is too short: reading " in line
    check_named_budget(refused, lambda seconds: benchmark(seconds, tmp_path / f"{seconds:g}"))


QUICK = ("--recipe", "haet2021", "--set", "width=8", "--precision", "fp32")


def test_a_learning_rate_range_test(photos: str, tmp_path: Path) -> None:
    def lr_find(seconds: float) -> subprocess.CompletedProcess[str]:
        words = ["lr-find", photos, "--budget", f"{seconds:g}s", "--device", "cpu", *QUICK]
        command = [sys.executable, "-m", "timebox", *words, "--out", str(tmp_path / "lr")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = lr_find(1.0)
    assert refused.returncode == REFUSED
    line = refused.stderr.splitlines()[-1]
    assert line.startswith("timebox lr-find: error: budget 1.0s is too short: reading and planning took ")
    check_named_budget(refused, lr_find)
