"""The comparison of one process with several: what it makes of the summaries of trainings."""

import argparse
from pathlib import Path

import pytest

from .conftest import BENCHMARKS  # noqa: F401 -- makes the benchmarks importable

import scaling  # isort: skip

SPEEDS = {1: 100.0, 2: 95.0}


def trained(data: str, processes: int, words: tuple[object, ...], out: Path | None = None) -> dict[str, object]:
    """Three seconds to start, then so many images a second."""
    images = int(str(words[words.index("--steps") + 1])) * 64
    ranks = {"ranks": [{"waiting_share": 0.1}, {"waiting_share": 0.04}]} if processes > 1 else {}
    return {"phases": {"training": 3.0 + images / SPEEDS[processes]}, **ranks}


def test_what_starting_takes_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "trained", trained)
    given = argparse.Namespace(
        data="digits", processes=2, rounds=3, steps=40, batch_size=64, precision="fp32", budget=None, seeds=1
    )
    lines = list(scaling.measured(given))
    each = [line for line in lines if line["row"] == "speed"]
    assert len(each) == 2 * 3 * len(scaling.WIDTHS)
    assert {line["processes"]: line["images_per_second"] for line in each} == SPEEDS
    compared = [line for line in lines if line["row"] != "speed"]
    assert [line["ratio"] for line in compared] == [0.95] * len(scaling.WIDTHS)
    assert [line["waiting_share"] for line in compared] == [0.04] * len(scaling.WIDTHS)
