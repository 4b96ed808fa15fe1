"""Fixtures for searches that are as short as possible."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from budgets import smallest_named
from small_runs import CLASSES, SMALL, coloured, save_npz
from timebox.configs import tune
from timebox.configs.data import DataConfig
from timebox.data import ImageDataset
from timebox.errors import BudgetError
from timebox.tuning.trial import Trainer

# No search reaches the end of this budget, see pace.py. Trial budgets are the smallest that this machine accepts, times
# ROOM in case it becomes busier.
BUDGET, SHORTEST, ROOM = 1800.0, 3.0, 1.5
SPACE = '[max_lr]\ntimes = [0.05, 20]\n[label_smoothing]\nwithin = [0.0, 0.4]\n[flip]\namong = ["none", "random"]\n'


@cache
def trial_seconds() -> float:
    """The trial budget: one and a half times the smallest that this machine accepts, at least 3 s."""
    images, labels = coloured(300)
    data = ImageDataset(images, labels, CLASSES, tuple(map(str, range(300))))
    trainer = Trainer(data, data, DataConfig("x"), torch.device("cpu"), "fp32", 0)
    try:
        trainer.train("haet2021", SMALL, 0, 0.01)
    except BudgetError as refusal:
        return max(SHORTEST, ROOM * smallest_named(str(refusal)))
    raise AssertionError("a budget of a hundredth of a second was not refused")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "MIN_TRIAL_SECONDS", trial_seconds())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return save_npz(tmp_path / "data.npz", 300, num_test=60)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.toml"
    file.write_text(SPACE)
    return file


def arguments(space: Path, out: Path, **changes: object) -> dict[str, Any]:
    return {
        "budget": BUDGET, "trial_budget": trial_seconds(), "recipe": "haet2021", "settings": SMALL, "space": space,
        "device": "cpu", "precision": "fp32", "out": out, **changes,
    }  # fmt: skip


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
