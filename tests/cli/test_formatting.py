"""Figures, facts, tables and JSON."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from timebox.cli.formatting import facts, json_line, show, table
from timebox.formatting import number, percent, plural, short


def test_missing_figures_are_a_dash() -> None:
    assert number(1234) == "1,234"
    assert {number(value) for value in (None, math.nan, math.inf, True, "7")} == {"–"}
    assert [percent(value) for value in (0.98333, 1, None, math.nan)] == ["98.33 %", "100.00 %", "–", "–"]


def test_losses_and_rates_are_short() -> None:
    values = (0.51234, 0.000412, 12.34, 2345.6, math.nan, math.inf, 0.0, 1e9)
    assert [short(value) for value in values] == ["0.512", "0.000412", "12.3", "2346", "nan", "inf", "0", "1e+09"]


def test_plurals() -> None:
    assert [plural(1, "image"), plural(1797, "image"), plural(0, "class", "classes")] == [
        "1 image", "1,797 images", "0 classes",
    ]  # fmt: skip


def test_facts_line_up_and_repeat_no_label() -> None:
    assert facts([("time", "1s"), ("", ""), ("next", "a"), ("next", "b")]).splitlines() == [
        "  time           1s", "", "  next           a", "                 b",
    ]  # fmt: skip


def test_json_is_strict_and_knows_arrays_and_paths() -> None:
    value = {
        "a": np.float32(0.5),
        "b": np.eye(2, dtype=np.int64),
        "c": Path("x/y"),
        1: (None, True, -math.inf, math.nan),
    }
    assert json.loads(json_line(value)) == {"a": 0.5, "b": [[1, 0], [0, 1]], "c": "x/y", "1": [None, True, None, None]}
    assert json_line(value).count("\n") == 1


def test_without_a_terminal_results_are_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a class with a name that no terminal of eighty columns shows on a single line, [bold]really[/bold]"
    show("  run   " + "x" * 200, table(("class", "images"), [(name, "7")]))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "x" * 200 in out
    assert name in out
    assert not any(line.endswith(" ") for line in out.splitlines())
