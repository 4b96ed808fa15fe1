"""NaN and infinity in a loss or a gradient: a training recovers from one, and ends with the cause where they go on."""

from pathlib import Path

import pytest

from scale import scaled
from scenarios.non_finite import (
    IN_LAST_STEP,
    LASTING,
    MOST_POINTS_LOST,
    ONCE,
    clean_accuracy,
    in_last_step,
    lasting,
    once,
    overflow_in_fp16,
    points_lost,
)

NUM_SEEDS = 3
where_and_value = "where, value"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Test accuracies without a fault, one for each seed."""
    folder = tmp_path_factory.mktemp("clean")
    return [clean_accuracy(folder / str(seed), seed) for seed in scaled(NUM_SEEDS)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(where_and_value, ONCE)
def test_one_costs_no_accuracy(where: str, value: str, clean: list[float], tmp_path: Path) -> None:
    accuracies = []
    for seed in range(len(clean)):
        problem, accuracy = once(tmp_path / str(seed), where, value, seed)
        assert not problem
        accuracies.append(accuracy)
    assert points_lost(clean, accuracies) <= MOST_POINTS_LOST


@pytest.mark.parametrize(where_and_value, IN_LAST_STEP)
def test_in_the_last_step(where: str, value: str, tmp_path: Path) -> None:
    assert not in_last_step(tmp_path / "run", where, value)


@pytest.mark.parametrize(where_and_value, LASTING)
def test_lasting_ones_end_the_training_with_step_and_cause(where: str, value: str, tmp_path: Path) -> None:
    assert not lasting(tmp_path / "run", where, value)


def test_an_overflow_in_fp16_skips_the_step(tmp_path: Path) -> None:
    assert not overflow_in_fp16(tmp_path / "run")
