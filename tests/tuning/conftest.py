"""Searches as short as they can be."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from run.conftest import SMALL, save_npz
from timebox.tuning import tune

# No search comes near the end of this budget, see pace.py. Its trials are worth nothing but a test.
BUDGET, TRIAL = 600.0, 3.0
SPACE = '[max_lr]\ntimes = [0.05, 20]\n[label_smoothing]\nwithin = [0.0, 0.4]\n[flip]\namong = ["none", "random"]\n'


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    home = sys.modules[tune.__module__]
    monkeypatch.setattr(home, "SHORTEST_TRIAL", TRIAL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_npz(tmp_path / "data.npz", 300, num_test=60)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.toml"
    file.write_text(SPACE)
    return file


def arguments(space: Path, out: Path, **given: object) -> dict[str, Any]:
    return {
        "budget": BUDGET, "trial_budget": TRIAL, "recipe": "haet2021", "settings": SMALL, "space": space,
        "device": "cpu", "precision": "fp32", "out": out, **given,
    }  # fmt: skip


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
