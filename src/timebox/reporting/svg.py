"""Charts as inline SVG. Colours come from the page's style, so that they follow light and dark."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Points = Sequence[tuple[float, float]]
# More points than this show nothing more.
MOST_POINTS = 240
_WIDTH, _HEIGHT = 460, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 26, 14, 34
# Cells up to so many a side carry their number.
_NUMBERED_CELLS = 20


@dataclass(frozen=True)
class Line:
    """A line of a chart; `style` is a class of the page's style, `dots` marks its points, which are `joined` or not."""

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
    """Lines over the steps of a training, or over what else x stands for, from ``first_x`` on."""
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

    parts = [opening(_WIDTH, _HEIGHT, title)]
    for tick in y_ticks:
        _, y = place((left, tick))
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{_LEFT - 7}" y="{y + 5:.1f}">{escape(show_y(tick))}</text>')
    for tick in x_ticks:
        x, _ = place((tick, low))
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{_HEIGHT - 9}">{escape(show_x(tick))}</text>')
    for line in lines:
        placed = [place(point) for point in (thinned(line.points) if line.joined else line.points)]
        if line.joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
            parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        if line.dots:
            parts += [f'<circle class="dot {line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in placed]
    return "".join([*parts, "</svg>"])


def timeline(parts: Sequence[tuple[str, float]], total: float, title: str) -> str:
    """What a time was spent on, as one bar: (what, seconds); what is left of the total stays empty."""
    height = 30
    stretched = ' class="timeline" preserveAspectRatio="none"'
    drawn = [opening(1000, height, title, stretched), f'<rect class="empty" width="1000" height="{height}" rx="6"/>']
    start = 0.0
    for number, (what, seconds) in enumerate(parts):
        width = 1000 * seconds / total
        label = escape(f"{what}: {seconds:.1f} s")
        drawn.append(
            f'<rect class="part part{number % 8}" x="{start:.1f}" width="{max(width, 0.5):.1f}" height="{height}">'
            f"<title>{label}</title></rect>"
        )
        start += width
    return "".join([*drawn, "</svg>"])


def heat_map(counts: NDArray[np.int64], names: Sequence[str], title: str) -> str:
    """A confusion matrix: rows the true class, columns the predicted one; the stronger, the larger the row's share."""
    size = len(names)
    cell = max(6, min(44, 760 // size))
    numbered = size <= _NUMBERED_CELLS
    margin = 12 + 7 * min(14, max(map(len, names))) if size <= 60 else 12
    width = margin + size * cell + 4
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [opening(width, width, title, f' style="max-width: {1.25 * width:.0f}px"')]
    for row, column in zip(*np.nonzero(counts), strict=True):
        x, y, share = margin + column * cell, margin + row * cell, shares[row, column]
        style = "right" if row == column else "wrong"
        says = escape(f"{names[row]} taken for {names[column]}: {counts[row, column]:,}")
        parts.append(
            f'<rect class="{style}" x="{x}" y="{y}" width="{cell - 1}" height="{cell - 1}" '
            f'opacity="{0.12 + 0.88 * share:.2f}"><title>{says}</title></rect>'
        )
        if numbered:
            bright = " bright" if share > 0.5 else ""
            parts.append(
                f'<text class="cell mid{bright}" x="{x + cell / 2:.1f}" y="{y + cell / 2 + 4:.1f}">'
                f"{counts[row, column]:,}</text>"
            )
    if size <= 60:
        for i, name in enumerate(names):
            middle, label = margin + i * cell + cell / 2, escape(_shortened(name))
            parts.append(f'<text class="tick end" x="{margin - 6}" y="{middle + 4:.1f}">{label}</text>')
            parts.append(
                f'<text class="tick" transform="translate({middle + 4:.1f},{margin - 6}) rotate(-60)">{label}</text>'
            )
    return "".join([*parts, "</svg>"])


def reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_], title: str, num_bins: int = 10) -> str:
    """How often the model is right, by how sure it is; on the diagonal it is as often right as it says."""
    side, margin = 280, 44
    inner = side - margin - 26
    bins = np.minimum((confidence * num_bins).astype(np.int64), num_bins - 1)
    parts = [opening(side, side, title)]
    for i in range(num_bins):
        there = bins == i
        if there.any():
            height, width = right[there].mean() * inner, inner / num_bins
            sure = f"{i / num_bins:.0%} to {(i + 1) / num_bins:.0%} sure"
            says = escape(f"{sure}: {there.sum():,} images, {right[there].mean():.1%} right")
            parts.append(
                f'<rect class="bar" x="{margin + i * width + 1:.1f}" y="{side - margin - height:.1f}" '
                f'width="{width - 2:.1f}" height="{height:.1f}" opacity="{0.35 + 0.65 * there.mean():.2f}">'
                f"<title>{says}</title></rect>"
            )
    far = side - margin
    parts.append(f'<line class="diagonal" x1="{margin}" y1="{far}" x2="{margin + inner}" y2="{far - inner}"/>')
    for share in (0, 0.5, 1):
        parts.append(f'<text class="tick end" x="{margin - 5}" y="{far - share * inner + 4:.0f}">{share:.0%}</text>')
        parts.append(f'<text class="tick mid" x="{margin + share * inner:.0f}" y="{far + 16}">{share:.0%}</text>')
    return "".join([*parts, "</svg>"])


def thinned(points: Points) -> Points:
    """At most MOST_POINTS points, each the mean of those it stands for."""
    step = math.ceil(len(points) / MOST_POINTS)
    if step <= 1:
        return points
    chunks = [points[start : start + step] for start in range(0, len(points), step)]
    return [(chunk[-1][0], sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def _ticks(low: float, high: float, number: int) -> list[float]:
    """Round numbers from about low to about high."""
    span = max(high - low, 1e-12) / number
    unit = 10 ** math.floor(math.log10(span))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= span)
    first = math.floor(low / step) * step
    return [first + i * step for i in range(math.ceil((high - first) / step - 1e-9) + 1)]


def opening(width: float, height: float, title: str, more: str = "") -> str:
    """The first tag of a drawing that is as wide as there is room."""
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}"{more}>'


def _shortened(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
