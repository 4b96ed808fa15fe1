"""One trial of each fault: a change of the program that the injected faults do not fit any more shows at once."""

import signal
import sys
from pathlib import Path

import pytest

from .conftest import ENDURANCE  # noqa: F401 -- makes the scenarios importable

from scenarios import disks, non_finite, out_of_memory, replays, resuming, signals  # isort: skip
from scenarios.run_checks import weights  # isort: skip
from scenarios.table import Row, joined, line, report  # isort: skip
from scenarios.training_process import OFTEN, finish  # isort: skip

linux = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")


@pytest.mark.integration
@linux
def test_a_stop_at_a_step_and_a_resume(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    finish(*resuming.TRAIN, "--steps", resuming.STEPS, "--out", whole, faults=OFTEN)
    assert not resuming.resumed(tmp_path / "run", 0, weights(whole))


@pytest.mark.integration
@linux
def test_a_signal() -> None:
    (phase,) = (phase for phase in signals.PHASES if phase.name == "training, after a checkpoint")
    assert not signals.stopped(phase, signal.SIGTERM)[1]


@pytest.mark.integration
@linux
def test_a_disk_that_fails(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    finish(*disks.WORDS, "--out", whole, faults=OFTEN)
    assert not disks.checkpoint_fails(tmp_path / "run", disks.CHECKPOINT_FAILURES[4], weights(whole))
    assert not disks.final_save_fails(tmp_path / "final", disks.FINAL_FAILURES[0])


@pytest.mark.integration
@linux
def test_a_loss_that_is_nan(tmp_path: Path) -> None:
    assert not non_finite.in_last_step(tmp_path / "last", "loss", "nan")
    assert not non_finite.lasting(tmp_path / "lasting", "loss", "nan")


@pytest.mark.integration
@linux
def test_memory_that_runs_out(tmp_path: Path) -> None:
    assert not out_of_memory.split_into_groups(tmp_path / "run", "runtime")


@pytest.mark.integration
@linux
def test_a_replay(tmp_path: Path) -> None:
    run = replays.rolled_back_run(tmp_path)
    assert not replays.replayed(run)
    assert not replays.refused_with_other_data(run)


def test_the_table_tells_what_was_not_survived(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Row("a flood", "it floats"), Row("a fire", "it is cold")
    good.count("")
    bad.count("")
    bad.count(joined("it", "", "burned"))
    assert report([good]) == 0
    assert report([good, bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["fault", "tried", "survived", "what", "was", "checked"],
        ["a", "flood", "1", "1", "it", "floats"],
        ["a", "fire", "2", "1", "it", "is", "cold"],
        ["NOT", "SURVIVED", "a", "fire:", "it;", "burned"],
    ]
    bad.note = "once"
    assert line(bad).endswith("it is cold (once)")
