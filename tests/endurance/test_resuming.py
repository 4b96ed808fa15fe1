"""A training that was stopped and resumed reaches the weights of one that was not."""

from pathlib import Path

import pytest

from scale import scaled
from scenarios.resuming import STEPS, resumed
from scenarios.run_checks import weights
from scenarios.training_process import OFTEN, TRAIN, finish

NUM_STOPS = 5


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(*TRAIN, "--steps", STEPS, "--out", run, faults=OFTEN)
    return weights(run)


@pytest.mark.parametrize("number", scaled(NUM_STOPS))
def test_after_a_stop_at_a_random_step_the_weights_are_the_same(number: int, expected: bytes, tmp_path: Path) -> None:
    assert expected
    assert not resumed(tmp_path / "run", number, expected)
