"""A search that is killed with its workers, and resumed, loses no complete trial and ends in time."""

import random
from pathlib import Path

import pytest

from scale import scaled

optuna = pytest.importorskip("optuna")

from search_kills import searched  # noqa: E402 -- needs optuna

NUM_KILLS = 3
BUDGET_SECONDS = 120.0


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", scaled(1))
def test_killed_searches(number: int, tmp_path: Path) -> None:
    chance = random.Random(f"timebox search {number}")
    kills, end = searched(number, NUM_KILLS, BUDGET_SECONDS, chance, tmp_path / "tune")
    assert len(kills) == NUM_KILLS
    assert not [kill for kill in kills if kill.problem]
    assert not end["problem"], end
