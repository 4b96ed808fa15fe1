"""The chart of a learning-rate range test as an SVG file."""

import math

from timebox.reporting.rendering import stylesheet
from timebox.reporting.svg import Line, line_chart
from timebox.training.lr_range_test import LRRangeTest

# Losses are clipped at this multiple of the first smoothed loss: beyond the minimum they grow without bound.
MAX_RELATIVE_LOSS = 1.25


def lr_range_chart(test: LRRangeTest) -> str:
    """Loss over learning rate, on a logarithmic axis, with the suggested learning rate and the bound as vertical lines.

    Args:
        test: of at least two steps.
    Returns:
        A complete SVG file with its style inside.
    """
    decades = [math.log10(lr) for lr in test.lrs]
    max_loss = MAX_RELATIVE_LOSS * float(test.smoothed[0])
    lines = [
        Line([(x, min(float(loss), max_loss)) for x, loss in zip(decades, losses, strict=True)], style)
        for losses, style in ((test.losses, "faint"), (test.smoothed, "first"))
    ]
    ys = [y for line in lines for _, y in line.points]
    for lr, style in ((test.suggestion, "other"), (test.bound, "bound")):
        if lr is not None:
            lines.append(Line([(math.log10(lr), min(ys)), (math.log10(lr), max(ys))], style))
    chart = line_chart(
        lines,
        "loss over learning rate",
        "{:.2g}".format,
        first_x=math.floor(decades[0]),
        show_x=lambda x: f"{10**x:.1g}",
    )
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{stylesheet()}svg {{ background: var(--card); }}</style>", 1
    )
