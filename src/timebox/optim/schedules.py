"""Learning rate and momentum schedules: pure functions of progress, which runs from 0 to 1 over a training.

Progress may come from a step counter or from a clock: see :mod:`timebox.training.pacer`.
"""

from collections.abc import Sequence


def piecewise_linear(progress: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """Linear interpolation at ``progress`` between (knots, values), knots increasing; constant beyond both ends."""
    if progress <= knots[0]:
        return values[0]
    for left, right, low, high in zip(knots, knots[1:], values, values[1:], strict=False):
        if progress < right:
            return low + (high - low) * (progress - left) / (right - left)
    return values[-1]


def one_cycle(progress: float, start: float, peak: float, end: float, peak_at: float, down_at: float) -> float:
    """The one-cycle policy (Smith & Topin, arXiv 1708.07120; Smith, arXiv 1803.09820).

    Rises from ``start`` to ``peak`` at ``peak_at``, falls back to ``start`` at ``down_at``, then anneals to ``end``.
    """
    return piecewise_linear(progress, (0.0, peak_at, down_at, 1.0), (start, peak, start, end))


def triangular(progress: float, low: float, high: float, num_cycles: int) -> float:
    """Cyclical learning rate: ``num_cycles`` triangles from ``low`` to ``high`` and back (Smith, arXiv 1506.01186)."""
    phase = progress * num_cycles % 1.0
    return low + (high - low) * (1.0 - abs(2.0 * phase - 1.0))
