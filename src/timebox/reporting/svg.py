"""Line charts, timelines, confusion matrices and reliability diagrams as inline SVG.

Colours are classes of the stylesheet in ``templates/style.css``, so that charts follow the light and the dark scheme.
Texts are escaped here: templates mark charts as safe.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
# About one point for every two pixels of a chart's width.
MAX_POINTS = 240
_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 14, 34
# The number of classes up to which a confusion matrix has counts in its cells, and class names beside its rows.
_MAX_COUNTED_CELLS, _MAX_NAMED_ROWS = 20, 60
_MAX_NAME_LENGTH = 14


@dataclass(frozen=True)
class Chart:
    """An SVG element and the title that pages show above it."""

    title: str
    svg: str


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        points: (x, y).
        style: a class of the stylesheet that sets the colour.
        dots: whether each point is marked.
        joined: whether the points are joined by a line.
    """

    points: Points
    style: str
    dots: bool = False
    joined: bool = True


def line_chart(
    lines: Sequence[Line],
    title: str,
    show_y: Callable[[float], str],
    from_zero: bool = False,
    *,
    first_x: float = 0.0,
    show_x: Callable[[float], str] = "{:,.0f}".format,
) -> str:
    """A line chart, by default over training steps.

    Args:
        title: for screen readers.
        show_y, show_x: format the tick labels.
        from_zero: whether the y axis starts at 0, not at the lowest value.
        first_x: where the x axis starts.
    """
    points = [point for line in lines for point in line.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = (0.0 if from_zero else min(ys)), max(ys)
    y_ticks = _ticks(low, high if high > low else low + 1, 4)
    x_ticks = _ticks(first_x, max(xs), 5)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    left, right = min(first_x, x_ticks[0]), max(max(xs), x_ticks[-1])

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _LEFT + (point[0] - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return x, _HEIGHT - _BOTTOM - (point[1] - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [open_svg(_WIDTH, _HEIGHT, title)]
    for tick in y_ticks:
        _, y = place((left, tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 7}" y="{y + 5:.1f}">{escape(show_y(tick))}</text>')
    for tick in x_ticks:
        x, _ = place((tick, low))
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{_HEIGHT - 9}">{escape(show_x(tick))}</text>')
    for line in lines:
        placed = [place(point) for point in (downsample(line.points) if line.joined else line.points)]
        if line.joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        if line.dots:
            parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in placed]
    return "".join([*parts, "</svg>"])


def timeline(phases: Sequence[tuple[str, float]], total_seconds: float, title: str) -> str:
    """A bar divided into phases, given as (name, seconds); the unused rest of the total stays empty."""
    height = 30
    stretch = ' class="timeline" preserveAspectRatio="none"'
    parts = [open_svg(1000, height, title, stretch), f'<rect class="empty" width="1000" height="{height}" rx="6"/>']
    start = 0.0
    for number, (name, seconds) in enumerate(phases):
        width = 1000 * seconds / total_seconds
        label = escape(f"{name}: {seconds:.1f} s")
        parts.append(
            f'<rect class="part part{number % 10}" x="{start:.1f}" width="{max(width, 0.5):.1f}" height="{height}">'
            f"<title>{label}</title></rect>"
        )
        start += width
    return "".join([*parts, "</svg>"])


def confusion_heat_map(counts: NDArray[np.int64], names: Sequence[str], title: str) -> str:
    """A confusion matrix whose cells are the more opaque, the larger their share of the row.

    Args:
        counts: int64 (num_classes, num_classes), rows are true classes, columns predicted classes.
        names: of the classes; shown up to 60 classes. Counts are shown up to 20 classes.
    """
    num_classes = len(names)
    cell = max(6, min(44, 760 // num_classes))
    has_names = num_classes <= _MAX_NAMED_ROWS
    name_length = min(_MAX_NAME_LENGTH, max(map(len, names))) if has_names else 0
    margin = 12 + 8 * name_length
    height = margin + num_classes * cell + 4
    # The name above the last column is as wide as half its length, because it is turned by 60 degrees.
    width = height + max(0, 8 + 4 * name_length - cell // 2)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [open_svg(width, height, title, f' style="max-width: {1.25 * width:.0f}px"')]
    for row, column in zip(*np.nonzero(counts), strict=True):
        x, y, share = margin + column * cell, margin + row * cell, shares[row, column]
        style = "right" if row == column else "wrong"
        label = escape(f"{names[row]} predicted as {names[column]}: {counts[row, column]:,}")
        parts.append(
            f'<rect class="{style}" data-label="{row}" data-predicted="{column}" x="{x}" y="{y}" width="{cell - 1}" '
            f'height="{cell - 1}" opacity="{0.12 + 0.88 * share:.2f}"><title>{label}</title></rect>'
        )
        if num_classes <= _MAX_COUNTED_CELLS:
            bright = " bright" if share > 0.5 else ""
            parts.append(
                f'<text class="cell mid{bright}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}">'
                f"{counts[row, column]:,}</text>"
            )
    for i, name in enumerate(names if has_names else ()):
        middle, label = margin + i * cell + cell / 2, escape(_shorten(name))
        parts.append(f'<text class="tick end" x="{margin - 6}" y="{middle + 4:.1f}">{label}</text>')
        parts.append(
            f'<text class="tick" transform="translate({middle + 4:.1f},{margin - 6}) rotate(-60)">{label}</text>'
        )
    return "".join([*parts, "</svg>"])


def reliability_diagram(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], title: str, num_bins: int = 10
) -> str:
    """Accuracy by confidence in bins of equal width; on the diagonal accuracy equals confidence.

    The more images a bin holds, the more opaque it is (Guo et al., "On calibration of modern neural networks", 2017).

    Args:
        confidence: (N,), 0...1, the probability of the predicted class.
        correct: (N,), whether the predicted class is the true class.
    """
    side, margin = 280, 44
    inner = side - margin - 26
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    parts = [open_svg(side, side, title)]
    for i in range(num_bins):
        is_in_bin = bins == i
        if is_in_bin.any():
            accuracy, width = correct[is_in_bin].mean(), inner / num_bins
            limits = f"{i / num_bins:.0%} to {(i + 1) / num_bins:.0%}"
            label = escape(f"confidence {limits}: {is_in_bin.sum():,} images, accuracy {accuracy:.1%}")
            parts.append(
                f'<rect class="bar" x="{margin + i * width + 1:.1f}" y="{side - margin - accuracy * inner:.1f}" '
                f'width="{width - 2:.1f}" height="{accuracy * inner:.1f}" '
                f'opacity="{0.35 + 0.65 * is_in_bin.mean():.2f}"><title>{label}</title></rect>'
            )
    far = side - margin
    parts.append(f'<line class="diagonal" x1="{margin}" y1="{far}" x2="{margin + inner}" y2="{far - inner}"/>')
    for share in (0, 0.5, 1):
        parts.append(f'<text class="tick end" x="{margin - 5}" y="{far - share * inner + 4:.0f}">{share:.0%}</text>')
        parts.append(f'<text class="tick mid" x="{margin + share * inner:.0f}" y="{far + 16}">{share:.0%}</text>')
    return "".join([*parts, "</svg>"])


def downsample(points: Points) -> Points:
    """At most ``MAX_POINTS`` points: runs of neighbouring points become the last x and the mean y of each run."""
    step = math.ceil(len(points) / MAX_POINTS)
    if step <= 1:
        return points
    chunks = [points[start : start + step] for start in range(0, len(points), step)]
    return [(chunk[-1][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def open_svg(width: float, height: float, title: str, attributes: str = "") -> str:
    """The opening ``<svg>`` tag of a chart that scales to the width of its container."""
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{label}"{attributes}>'


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Round numbers from at most low to at least high, about ``number`` intervals apart."""
    span = max(high - low, 1e-12) / number
    unit = 10 ** math.floor(math.log10(span))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= span)
    first = math.floor(low / step) * step
    return [first + i * step for i in range(math.ceil((high - first) / step - 1e-9) + 1)]


def _shorten(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else name[: _MAX_NAME_LENGTH - 1] + "…"
