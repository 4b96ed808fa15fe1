"""Curves of Braille dots."""

import pytest

from timebox.cli.text_plot import sketch


def test_dots_lie_where_the_points_are():
    assert sketch([(0, 0), (1, 1)], 1, 1) == [chr(0x2800 | 0x40 | 0x08)]
    assert sketch([(0, 1), (1, 0)], 1, 1) == [chr(0x2800 | 0x01 | 0x80)]


def test_corners_of_a_larger_drawing():
    lines = sketch([(0, 0), (5, 10), (10, 10)], 3, 2)
    assert [len(line) for line in lines] == [3, 3]
    assert lines[0][2] != "\u2800"
    assert lines[1][0] != "\u2800"
    assert lines[1][2] == "\u2800"


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(0.0, 3.0), (1.0, 3.0)], [(2.0, 0.0), (2.0, 1.0)]])
def test_what_does_not_vary_is_drawn_too(points):
    assert any(sign != "\u2800" for line in sketch(points, 4, 2) for sign in line)
