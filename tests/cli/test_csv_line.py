"""Lines of CSV: any reader gets the cells back, and no spreadsheet runs them."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timebox.cli.csv_line import csv_line

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def read(line: str) -> list[str]:
    """The cells of a line, by Python's own reader."""
    (cells,) = csv.reader(io.StringIO(line, newline=""), strict=True)
    return cells


def undone(cells: list[str]) -> list[str]:
    """The cells as they were: without one apostrophe at the start."""
    return [cell.removeprefix("'") for cell in cells]


INVISIBLE = "\u180e\u2800\u3164\uffa0\u115f\u034f\u061c\u206a\ufe0f\ue000"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("cat", "cat"),
        ("", ""),
        ("a cat", "a cat"),
        ("cat, dog", '"cat, dog"'),
        ('the "cat"', '"the ""cat"""'),
        ("a\rb", '"a\rb"'),
        ("a\nb", '"a\nb"'),
        ("a\r\nb", '"a\r\nb"'),
        ("a;b", '"a;b"'),
        ("a;=b", '"a;=b"'),
        ("a\tb", '"a\tb"'),
        ("a ", '"a "'),
        ("=1+1", "'=1+1"),
        ("=HYPERLINK(\"http://x\",\"y\")", '"\'=HYPERLINK(""http://x"",""y"")"'),
        ("+SUM(A1)", "'+SUM(A1)"),
        ("-SUM(A1)", "'-SUM(A1)"),
        ("-a.png", "'-a.png"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("﹦1+1", "'﹦1+1"),
        ("﹢1", "'﹢1"),
        ("﹣1", "'﹣1"),
        ("﹫1", "'﹫1"),
        ("−1", "'−1"),
        ("\u202e=1+1", "'\u202e=1+1"),
        ("\u2066=1+1", "'\u2066=1+1"),
        *((f"{blank}=1+1", f"'{blank}=1+1") for blank in INVISIBLE),
        ("\u180ea=1", "\u180ea=1"),
        ("\u200d\u2060=1+1", "'\u200d\u2060=1+1"),
        ("  =1+1", "'  =1+1"),
        ("\u00a0=1+1", "'\u00a0=1+1"),
        ("\ufeff=1+1", "'\ufeff=1+1"),
        ("\t=1+1", '"\'\t=1+1"'),
        ("\rcat", '"\'\rcat"'),
        ("\ncat", '"\'\ncat"'),
        ("'60s", "''60s"),
        ("'=1", "''=1"),
        ("=\r1", '"\'=\r1"'),
        ("0.500000", "0.500000"),
        ("-1", "-1"),
        ("+1", "+1"),
        ("-1.5e-3", "-1.5e-3"),
        ("-1+1", "'-1+1"),
        ("-1 cat", "'-1 cat"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31mred\x7f\x00", "\\x9b31mred\\x7f\\x00"),
        ("a/b=c", "a/b=c"),
        ("grün", "grün"),
    ],
)  # fmt: skip
def test_cells(cell: str, written: str) -> None:
    assert csv_line([cell, "x"]) == f"{written},x\n"


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="".join(map(chr, range(32))))), min_size=2
    )
)
def test_any_reader_gets_the_cells_back(cells: list[str]) -> None:
    plain = [re.sub("[\x7f-\x9f]", "", cell) for cell in cells]
    read_back = read(csv_line(plain))
    assert undone(read_back) == plain
    assert not [
        cell
        for cell in read_back
        if cell.startswith(FORMULA_STARTS) and not re.fullmatch(r"[+-]?[\d.]+(?:[eE][+-]?\d+)?", cell)
    ]


@pytest.mark.parametrize("cell", ["a\rb", "\r=1", "\r", "a\nb", "a\r\nb\r", "\ta", '"', "''", "'", "=", '="a,b"\r'])
def test_line_ends_within_cells_are_read_back(cell: str) -> None:
    line = csv_line(["x", cell, "y"])
    assert undone(read(line)) == ["x", cell, "y"]
    assert line.endswith(",y\n")


def test_a_terminal_gets_one_line_and_nothing_that_it_obeys() -> None:
    assert csv_line(["a\rb\n\x1b[2J", "\t=1"], for_terminal=True) == "a\\rb\\n\\x1b[2J,\\t=1\n"
