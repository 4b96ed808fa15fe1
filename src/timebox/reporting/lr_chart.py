"""A range test as a drawing of its own."""

import math

from timebox.reporting.style import STYLE
from timebox.reporting.svg import Line, line_chart
from timebox.training.lr_range_test import LRRangeTest

# Of the chart, as a multiple of the first loss.
CEILING = 1.25


def range_chart(test: LRRangeTest) -> str:
    """Loss over learning rate, logarithmic, with the suggestion and the bound, as a whole SVG file.

    Losses far above the first are cut off: what matters lies below.

    Args:
        test: of two steps or more.
    """
    decades = [math.log10(lr) for lr in test.lrs]
    ceiling = CEILING * float(test.smoothed[0])
    lines = [
        Line([(x, min(float(y), ceiling)) for x, y in zip(decades, test.losses, strict=True)], "faint"),
        Line([(x, min(float(y), ceiling)) for x, y in zip(decades, test.smoothed, strict=True)], "first"),
    ]
    shown = [y for line in lines for _, y in line.points]
    for rate, style in ((test.suggestion, "other"), (test.bound, "bound")):
        if rate is not None:
            lines.append(Line([(math.log10(rate), min(shown)), (math.log10(rate), max(shown))], style))
    chart = line_chart(
        lines,
        "loss over learning rate",
        "{:.2g}".format,
        first_x=math.floor(decades[0]),
        show_x=lambda x: f"{10**x:.1g}",
    )
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{STYLE}svg {{ background: var(--card); }}</style>", 1
    )
