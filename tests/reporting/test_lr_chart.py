"""The chart of a learning-rate range test."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from timebox.reporting.lr_chart import lr_range_chart
from timebox.training.lr_range_test import suggest_lr


@pytest.mark.parametrize("explodes", [False, True])
def test_points_lie_inside_the_chart(explodes):
    x = np.linspace(-4, 2, 100)
    losses = 2.3 - 1.5 / (1 + np.exp(-5 * (x + 2))) + np.clip(x, 0, None) ** (9 if explodes else 2)
    test = suggest_lr(list(10**x), list(losses), diverged=explodes)
    svg = lr_range_chart(test)
    drawing = ET.fromstring(svg)
    lines = re.findall(r'points="([^"]+)"', svg)
    assert len(lines) == 4
    for line in lines:
        for point in line.split():
            across, down = map(float, point.split(","))
            assert 0 <= across <= 460
            assert 0 <= down <= 220
    ticks = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0.0001", "0.01", "1"} <= set(ticks)
