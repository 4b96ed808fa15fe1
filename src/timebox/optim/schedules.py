"""Learning-rate and momentum policies: pure functions of progress, which runs from 0 to 1 over a training.

Progress is all a policy knows. Whether it follows a step counter or a clock is decided elsewhere.
"""

from collections.abc import Sequence
from typing import Literal

Policy = Literal["one_cycle", "triangular", "piecewise", "constant"]


def piecewise_linear(progress: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """The value at ``progress`` of straight lines through (knots, values), constant beyond both ends.

    Args:
        progress: 0...1.
        knots: rising positions, as many as values.
    """
    if progress <= knots[0]:
        return values[0]
    for left, right, low, high in zip(knots, knots[1:], values, values[1:], strict=False):
        if progress < right:
            return low + (high - low) * (progress - left) / (right - left)
    return values[-1]


def one_cycle(progress: float, start: float, peak: float, end: float, peak_at: float, down_at: float) -> float:
    """Up, down by the same road, then on down to the end: Smith's one-cycle policy.

    Rises from ``start`` to ``peak`` at ``peak_at``, is back down at ``start`` by ``down_at``, and anneals to ``end``,
    well below where it began, in what is left (Smith & Topin, arXiv 1708.07120; Smith, arXiv 1803.09820).
    """
    return piecewise_linear(progress, (0.0, peak_at, down_at, 1.0), (start, peak, start, end))


def triangular(progress: float, low: float, high: float, num_cycles: int) -> float:
    """Cyclical rates: ``num_cycles`` triangles from ``low`` to ``high`` and back (Smith, arXiv 1506.01186)."""
    phase = progress * num_cycles % 1.0
    return low + (high - low) * (1.0 - abs(2.0 * phase - 1.0))


def lr_at(
    progress: float,
    policy: Policy,
    *,
    max_lr: float,
    start_fraction: float,
    end_fraction: float,
    peak_at: float,
    down_at: float,
    num_cycles: int,
) -> float:
    """The learning rate at ``progress``.

    Args:
        policy: ``one_cycle``, ``triangular``, ``piecewise`` (start, peak at ``peak_at``, end at ``down_at``,
            constant afterwards) or ``constant``.
        max_lr: the peak.
        start_fraction, end_fraction: the rate at the beginning and at the end, as a share of ``max_lr``.
        peak_at, down_at: in progress, 0...1, ``peak_at`` below ``down_at``.
        num_cycles: triangles of the triangular policy.
    """
    start, end = max_lr * start_fraction, max_lr * end_fraction
    if policy == "one_cycle":
        return one_cycle(progress, start, max_lr, end, peak_at, down_at)
    if policy == "triangular":
        return triangular(progress, start, max_lr, num_cycles)
    if policy == "piecewise":
        return piecewise_linear(progress, (0.0, peak_at, down_at), (start, max_lr, end))
    return max_lr


def momentum_at(
    progress: float,
    policy: Policy,
    *,
    max_momentum: float,
    min_momentum: float,
    peak_at: float,
    down_at: float,
    num_cycles: int,
) -> float:
    """The momentum at ``progress``: it runs against the learning rate, lowest where the rate is highest.

    Large rates already carry the weights far; less momentum then keeps the training stable (Smith, arXiv 1803.09820,
    section 4.3). The piecewise and constant policies hold ``max_momentum`` throughout.
    """
    if policy == "one_cycle":
        return one_cycle(progress, max_momentum, min_momentum, max_momentum, peak_at, down_at)
    if policy == "triangular":
        return triangular(progress, max_momentum, min_momentum, num_cycles)
    return max_momentum
