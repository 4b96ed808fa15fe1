"""The table of what a training survives."""

import pytest

from .conftest import ENDURANCE  # noqa: F401 -- makes the scenarios importable

from scenarios.table import Row, joined, line, report  # isort: skip


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
