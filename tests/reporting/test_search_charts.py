"""Charts of a search: well-formed, with every value at its position."""

import re
import xml.etree.ElementTree as ET

from timebox.reporting.search_charts import bar_chart, parallel_coordinates_chart, strip_plot


def test_parallel_coordinates_have_one_line_per_trial() -> None:
    trials = [
        ({"lr": 0.1, "flip": "none"}, 0.5),
        ({"lr": 10.0, "flip": "random"}, 0.9),
        ({"lr": 1.0, "flip": "x"}, 0.7),
    ]
    drawing = parallel_coordinates_chart(trials, ["lr", "flip"], "a & b")
    ET.fromstring(drawing)
    lines = re.findall(r'class="line (\w+)" opacity="([\d.]+)" points="([^"]+)"', drawing)
    assert [style for style, _, _ in lines] == ["first", "first", "other"]  # the best last, on top
    assert [float(strength) for _, strength, _ in lines] == sorted(float(strength) for _, strength, _ in lines)
    heights = {points.split()[0].split(",")[1] for _, _, points in lines}
    assert len(heights) == 3
    (lowest, _, highest) = sorted(float(height) for height in heights)
    assert abs((lowest + highest) / 2 - sorted(map(float, heights))[1]) < 0.2  # logarithmic: 1 is halfway


def test_charts_of_a_single_value() -> None:
    ET.fromstring(parallel_coordinates_chart([({"lr": 1, "flip": True}, 0.5)] * 2, ["lr", "flip"], "same"))
    ET.fromstring(strip_plot([("a", [0.5])], "one"))
    ET.fromstring(bar_chart([("a", 0.0)], "none"))


def test_bar_length_is_proportional_to_the_share() -> None:
    drawing = bar_chart([("lr", 0.6), ("flip", 0.3)], "importance")
    ET.fromstring(drawing)
    long, short = (float(width) for width in re.findall(r'class="bar"[^>]*width="([\d.]+)"', drawing))
    assert abs(long - 2 * short) < 0.2
    assert "60%" in drawing


def test_strip_plot_has_one_dot_per_seed() -> None:
    drawing = strip_plot([("start", [0.7, 0.72]), ("trial <3>", [0.8])], "leaders")
    ET.fromstring(drawing)
    assert drawing.count("<circle") == 3
    assert "trial &lt;3&gt;" in drawing
