"""Learning rate and momentum schedules: pure functions of progress, which runs from 0 to 1 over a training.

Progress may come from a step counter or from a clock: see :mod:`timebox.training.pacer`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["one_cycle", "triangular", "piecewise", "constant"]


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


@dataclass(frozen=True)
class LRSchedule:
    """Learning rate and momentum over a training.

    Attributes:
        policy: ``one_cycle``, ``triangular``, ``piecewise`` (from the first learning rate to the peak at ``peak_at``,
            to the last at ``down_at``, constant afterwards) or ``constant``.
        max_lr: highest learning rate.
        start_fraction, end_fraction: first and last learning rate, as fractions of ``max_lr``.
        peak_at, down_at: in progress, 0...1, ``peak_at`` below ``down_at``.
        num_cycles: number of cycles of the triangular policy.
        max_momentum, min_momentum: momentum at the lowest and the highest learning rate.
    """

    policy: Policy
    max_lr: float
    start_fraction: float
    end_fraction: float
    peak_at: float
    down_at: float
    num_cycles: int
    max_momentum: float
    min_momentum: float

    def lr(self, progress: float) -> float:
        """The learning rate at ``progress``, 0...1."""
        start, end = self.max_lr * self.start_fraction, self.max_lr * self.end_fraction
        if self.policy == "one_cycle":
            return one_cycle(progress, start, self.max_lr, end, self.peak_at, self.down_at)
        if self.policy == "triangular":
            return triangular(progress, start, self.max_lr, self.num_cycles)
        if self.policy == "piecewise":
            return piecewise_linear(progress, (0.0, self.peak_at, self.down_at), (start, self.max_lr, end))
        return self.max_lr

    def momentum(self, progress: float) -> float:
        """The momentum at ``progress``, 0...1: inverse to the learning rate.

        Less momentum keeps the training stable at large learning rates (Smith, arXiv 1803.09820, section 4.3). The
        piecewise and constant policies have ``max_momentum`` throughout.
        """
        high, low = self.max_momentum, self.min_momentum
        if self.policy == "one_cycle":
            return one_cycle(progress, high, low, high, self.peak_at, self.down_at)
        return triangular(progress, high, low, self.num_cycles) if self.policy == "triangular" else high
