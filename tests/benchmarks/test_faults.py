"""A short form of `benchmarks/faults.py`: a few of each of its faults, and its table."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")


@pytest.fixture(scope="module")
def rows() -> Iterator[ModuleType]:
    """The package of rows, importable as beside the benchmark itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import fault_rows
        import faults

        yield fault_rows
        del faults


def survived(outcomes: Iterator[object]) -> None:
    from fault_rows.runs import Outcome

    for outcome in outcomes:
        assert isinstance(outcome, Outcome)
        assert outcome.tried
        assert outcome.problems == [], outcome.fault


def test_kills(rows: ModuleType) -> None:
    from fault_rows import kills

    survived(kills.random_instants(num_kills=2, jobs=1, steps=200))


def test_resuming(rows: ModuleType) -> None:
    from fault_rows import stops

    survived(stops.resumed(num_stops=1))


def test_signals(rows: ModuleType) -> None:
    from fault_rows import stops

    after = next(phase for phase in stops.PHASES if phase.name == "training, after a checkpoint")
    survived(stops.rows((after,)))


def test_disks(rows: ModuleType) -> None:
    from fault_rows import disks

    survived(disks.rows(short=True))


def test_numbers_and_memory(rows: ModuleType) -> None:
    from fault_rows import steps

    survived(steps.numbers(num_seeds=0, short=True))
    survived(steps.memory(short=True))


def test_replays(rows: ModuleType) -> None:
    from fault_rows import replays

    survived(replays.rows(short=True))


def test_the_table_tells_what_was_not_survived(rows: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    import faults
    from fault_rows.runs import Outcome

    good, bad = Outcome("a flood", "it floats"), Outcome("a fire", "it is cold")
    good.count("", "")
    bad.count("")
    bad.count("it", "", "burned")
    assert faults.report([good]) == 0
    assert faults.report([good, bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["fault", "tried", "survived", "what", "was", "checked"],
        ["a", "flood", "1", "1", "it", "floats"],
        ["a", "fire", "2", "1", "it", "is", "cold"],
        ["NOT", "SURVIVED", "a", "fire:", "it;", "burned"],
    ]


def test_processes_of_a_group(rows: ModuleType) -> None:
    from fault_rows import groups

    if groups.can_make_hosts():
        survived(iter([groups.cut_off(1)]))
    else:
        survived(iter([groups.lost("stop", 1, again=False)]))
