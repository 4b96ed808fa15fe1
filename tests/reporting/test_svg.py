import re

import numpy as np
import pytest

from timebox.reporting.svg import (
    MAX_POINTS,
    Line,
    confusion_heat_map,
    downsample,
    line_chart,
    reliability_diagram,
    timeline,
)


def numbers(svg: str, attribute: str) -> list[float]:
    return [float(value) for value in re.findall(rf' {attribute}="([-\d.]+)"', svg)]


def test_downsampling_keeps_the_last_point_and_the_mean():
    points = [(float(k), float(k % 2)) for k in range(1000)]
    few = downsample(points)
    assert len(few) <= MAX_POINTS
    assert few[-1][0] == 999
    assert all(abs(y - 0.5) <= 0.11 for _, y in few)
    assert downsample(points[:10]) == points[:10]


@pytest.mark.parametrize("values", [[0.0, 0.0], [1e-9, 3e-9], [-5.0, 7.0], [1e6, 2e6], [0.85, 0.85, 0.95]])
def test_lines_stay_inside_the_chart(values):
    svg = line_chart([Line(list(enumerate(values, 1)), "first", dots=True)], "t", "{:g}".format)
    points = [tuple(map(float, point.split(","))) for point in re.search(r'points="([^"]+)"', svg)[1].split()]
    assert all(0 <= x <= 460 and 0 <= y <= 220 for x, y in points)
    assert svg.count("<circle") == len(values)


def test_phase_width_is_proportional_to_its_time():
    svg = timeline([("a", 30.0), ("b", 15.0)], 60.0, "t")
    assert numbers(svg, "width") == [1000, 500, 250]
    assert "a: 30.0 s" in svg


def test_confusion_matrix_has_a_cell_for_each_nonzero_count():
    svg = confusion_heat_map(np.array([[9, 1], [0, 5]]), ("cat", "dog"), "t")
    assert svg.count("<rect") == 3
    assert "cat predicted as dog: 1" in svg
    assert svg.count('class="right"') == 2


def test_bar_height_is_the_accuracy_of_its_bin():
    svg = reliability_diagram(np.array([0.95] * 10), np.array([True] * 5 + [False] * 5), "t")
    assert numbers(svg, "height") == [pytest.approx((280 - 70) / 2, abs=0.1)]
    assert "confidence 90% to 100%: 10 images, accuracy 50.0%" in svg
