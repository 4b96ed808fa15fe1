"""Charts of a recipe search as inline SVG: parallel coordinates, horizontal bars and strip plots."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from timebox.reporting.svg import open_svg

_AXIS_GAP, _HEIGHT, _TOP, _BOTTOM, _SIDE = 86, 250, 28, 64, 46
_ROW = 26


def parallel_coordinates_chart(
    trials: Sequence[tuple[Mapping[str, object], float]], names: Sequence[str], title: str
) -> str:
    """One line per trial through its values on one axis per field; the higher its accuracy, the more opaque the line.

    Args:
        trials: one or more pairs of the values by field and the accuracy.
        names: of the fields; every trial has all of them.
    """
    axes = [_Axis([values[name] for values, _ in trials]) for name in names]
    width = 2 * _SIDE + _AXIS_GAP * (len(names) - 1)
    height = _HEIGHT - _TOP - _BOTTOM
    limits = f' style="min-width: {0.6 * width:.0f}px; max-width: {1.5 * width:.0f}px"'
    parts = [open_svg(width, _HEIGHT, title, limits)]
    ranked = sorted(trials, key=lambda trial: trial[1])
    for rank, (values, accuracy) in enumerate(ranked):
        strength = (rank + 1) / len(ranked)
        is_best = rank == len(ranked) - 1
        points = " ".join(
            f"{_SIDE + place * _AXIS_GAP},{_TOP + height * (1 - axis.position(values[name])):.1f}"
            for place, (name, axis) in enumerate(zip(names, axes, strict=True))
        )
        style, opacity = ("other", 1.0) if is_best else ("first", 0.06 + 0.6 * strength**3)
        parts.append(
            f'<polyline class="line {style}" opacity="{opacity:.2f}" points="{points}">'
            f"<title>{accuracy:.2%}</title></polyline>"
        )
    for place, (name, axis) in enumerate(zip(names, axes, strict=True)):
        x, bottom = _SIDE + place * _AXIS_GAP, _TOP + height
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{x}" y="{_TOP - 8}">{escape(axis.highest)}</text>')
        parts.append(f'<text class="tick mid" x="{x}" y="{bottom + 18}">{escape(axis.lowest)}</text>')
        lower = 36 if place % 2 == 0 else 54  # in two rows, as long names side by side would overlap
        parts.append(f'<text class="tick mid" x="{x}" y="{bottom + lower}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def bar_chart(shares: Sequence[tuple[str, float]], title: str) -> str:
    """Horizontal bars for named shares, 0...1."""
    width, left = 460, 150
    largest = max(share for _, share in shares) or 1.0
    parts = [open_svg(width, _ROW * len(shares) + 6, title)]
    for row, (name, share) in enumerate(shares):
        y = row * _ROW + 4
        length = (width - left - 60) * share / largest
        parts.append(f'<text class="tick end" x="{left - 8}" y="{y + 14}">{escape(name)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y}" width="{max(length, 1):.1f}" height="{_ROW - 8}" rx="3"/>')
        parts.append(f'<text class="tick" x="{left + length + 8:.1f}" y="{y + 14}">{share:.0%}</text>')
    return "".join([*parts, "</svg>"])


def strip_plot(rows: Sequence[tuple[str, Sequence[float]]], title: str) -> str:
    """A row per name with a dot for each of its accuracies and a bar at their mean."""
    width, left, right = 460, 150, 20
    values = [value for _, accuracies in rows for value in accuracies]
    low, high = min(values), max(values)
    span = max(high - low, 0.002)
    parts = [open_svg(width, _ROW * len(rows) + 26, title)]

    def place(value: float) -> float:
        return left + (value - low) / span * (width - left - right)

    for row, (name, accuracies) in enumerate(rows):
        y = row * _ROW + 14
        parts.append(f'<text class="tick end" x="{left - 12}" y="{y + 5}">{escape(name)}</text>')
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y}" y2="{y}"/>')
        mean = place(sum(accuracies) / len(accuracies))
        parts.append(f'<rect class="bar" x="{mean - 1.5:.1f}" y="{y - 9}" width="3" height="18"/>')
        parts += [
            f'<circle class="dot first" cx="{place(value):.1f}" cy="{y}" r="4"><title>{value:.2%}</title></circle>'
            for value in accuracies
        ]
    bottom = _ROW * len(rows) + 20
    parts.append(f'<text class="tick" x="{left}" y="{bottom}">{low:.1%}</text>')
    parts.append(f'<text class="tick end" x="{width - right}" y="{bottom}">{low + span:.1%}</text>')
    return "".join([*parts, "</svg>"])


class _Axis:
    """The axis of one field, from 0 to 1.

    Numbers are in order, on a logarithmic scale where all are above 0 and the largest is more than four times the
    smallest. Values that are not all numbers are in alphabetical order.
    """

    def __init__(self, values: Sequence[object]) -> None:
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        self._names = sorted({str(value) for value in values}) if len(numbers) < len(values) else []
        if self._names:
            self.lowest, self.highest = self._names[0], self._names[-1]
            return
        low, high = min(numbers), max(numbers)
        self._log = low > 0 and high / low > 4
        self._low, self._high = (math.log(low), math.log(high)) if self._log else (float(low), float(high))
        self.lowest, self.highest = f"{low:.3g}", f"{high:.3g}"

    def position(self, value: object) -> float:
        """0 at the lowest value, 1 at the highest."""
        if self._names:
            return self._names.index(str(value)) / max(1, len(self._names) - 1)
        assert isinstance(value, int | float)
        number = math.log(value) if self._log else value
        return (number - self._low) / (self._high - self._low) if self._high > self._low else 0.5
