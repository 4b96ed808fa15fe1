"""kill -9 at any instant leaves a run that loads, or says that nothing was saved, and that can be gone on with."""

from pathlib import Path

import pytest

from scale import SCALE, scaled
from scenarios.kills import Undisturbed, at_file_operations, killed_chain, undisturbed

# Killed up to six times, four on average.
NUM_CHAINS = 5
STEPS = 800
# Of about 70 file operations, one in so many.
EVERY = max(1, round(6 / SCALE))
JOBS = 1  # pytest runs as many tests at once as there are workers


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return undisturbed(tmp_path_factory.mktemp("undisturbed") / "run", STEPS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", scaled(NUM_CHAINS))
def test_at_random_instants_until_the_run_is_finished(number: int, reference: Undisturbed, tmp_path: Path) -> None:
    chain = killed_chain(tmp_path / "chain", number, reference)
    assert chain.kills or chain.is_at_end
    assert not any(chain.kills), chain.kills
    assert not chain.end_problem


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwriting"])
def test_at_single_file_operations(overwrite: bool, tmp_path: Path) -> None:
    row = at_file_operations(tmp_path, overwrite, every=EVERY, jobs=JOBS)
    assert row.tried >= 30 // EVERY
    assert not row.problems
