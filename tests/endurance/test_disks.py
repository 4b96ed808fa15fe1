"""Disks that are full, read-only or fail midway: the training goes on, the run loads, and the failure is told once."""

from pathlib import Path

import pytest

from scenarios.disks import (
    CHECKPOINT_FAILURES,
    FINAL_FAILURES,
    FIRST_CHECKPOINT_FAILURES,
    WORDS,
    Failure,
    checkpoint_fails,
    disk_is_full,
    final_save_fails,
    small_disk,
)
from scenarios.run_checks import weights
from scenarios.training_process import OFTEN, finish


def name_of(failure: Failure) -> str:
    lasting = "-on" if failure.lasting else ""
    return f"{failure.call}-{failure.name.rpartition('/')[2].strip('*.')}-{failure.at}{lasting}-{failure.errno}"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of an undisturbed run."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(*WORDS, "--out", run, faults=OFTEN)
    return weights(run)


@pytest.mark.parametrize("failure", [*CHECKPOINT_FAILURES, *FIRST_CHECKPOINT_FAILURES], ids=name_of)
def test_a_checkpoint_that_cannot_be_written(failure: Failure, expected: bytes, tmp_path: Path) -> None:
    assert expected
    assert not checkpoint_fails(tmp_path / "run", failure, expected)


@pytest.mark.parametrize("failure", FINAL_FAILURES, ids=name_of)
def test_a_final_save_that_cannot_be_written(failure: Failure, tmp_path: Path) -> None:
    assert not final_save_fails(tmp_path / "run", failure)


@pytest.mark.parametrize("is_freed", [True, False], ids=["freed", "full-to-the-end"])
def test_a_disk_that_fills(is_freed: bool, expected: bytes, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("this process may not mount a tmpfs")
        assert not disk_is_full(disk, is_freed, expected)
