"""Learning-rate range test: one step at each of many rising learning rates, and the loss at each.

L. Smith, "Cyclical learning rates for training neural networks", arXiv 1506.01186.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from timebox.data.device.loader import DeviceLoader
from timebox.optim.loss import Loss
from timebox.training.pacer import ClockPacer, Pacer
from timebox.training.state import TrainingState
from timebox.training.step import training_step

# The test ends where the median of the latest losses is above both the first median and a multiple of the lowest one.
DIVERGENCE_FACTOR, MEDIAN_WINDOW = 1.5, 5
# Standard deviation of the Gaussian that smooths the losses, in decades of the learning rate.
SMOOTHING_DECADES = 0.2
# Least fall of the smoothed loss, in multiples of its standard error, and least rise after it, as a share of the fall.
MIN_FALL_TO_NOISE, MIN_RISE_SHARE = 6.0, 0.05
# Fewer steps give no suggestion.
MIN_STEPS = 20


@dataclass(frozen=True)
class LRSweep:
    """The settings of the steps of a range test: learning rates from ``low`` to ``high``, 0 < low < high."""

    low: float
    high: float
    momentum: float
    micro_batch: int

    def lr_at(self, progress: float) -> float:
        """Learning rate at a progress of 0...1, evenly spaced in its logarithm."""
        return float(self.low * (self.high / self.low) ** progress)


@dataclass(frozen=True, eq=False)
class LRRangeTest:
    """The result of a range test.

    Attributes:
        lrs, losses: float64 (N,), rising learning rate of each step, and the loss of its batch before the update.
        smoothed: float64 (N,), the losses smoothed over neighbouring learning rates.
        diverged: whether the test ended early because the loss rose.
        suggestion: a value for ``max_lr``; None where the loss never fell.
        bound: the learning rate of the lowest loss, from which on it rises; None where it never rose.
        reason: how the suggestion and the bound were found, in one sentence.
    """

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    diverged: bool
    suggestion: float | None
    bound: float | None
    reason: str


class SweepPacer(ClockPacer):
    """A number of equal steps; longer and fewer ones from where the time left is too short for them.

    Args:
        num_steps: 1 or more. The others are as of :class:`ClockPacer`.
    """

    def __init__(
        self, num_steps: int, seconds_left: Callable[[], float], step_seconds: float, now: Callable[[], float]
    ) -> None:
        super().__init__(seconds_left, step_seconds, now)
        self._num_steps = num_steps

    def next(self, num_unfinished: int) -> float | None:
        least = self._progress + 1 / self._num_steps
        progress = super().next(num_unfinished)
        if progress is None:
            return None
        self._progress = max(progress, least) if least < 1 - 1e-9 else 1.0
        return self._progress


def lr_range_test(
    state: TrainingState,
    loader: DeviceLoader,
    loss_fn: Loss,
    pacer: Pacer,
    sweep: LRSweep,
    notify: Callable[[int, float, float], None] = lambda step, lr, loss: None,
) -> LRRangeTest:
    """Run one step at each learning rate of a sweep until the loss rises, then restore the training state.

    ``pacer`` decides the number of steps; ``notify`` receives number, learning rate and loss of each.
    """
    before = state.snapshot()
    lrs: list[float] = []
    losses: list[float] = []
    try:
        while (progress := pacer.next(0)) is not None:
            lr = sweep.lr_at(progress)
            state.optimizer.prepare(lr, sweep.momentum, before.progress)
            loss = float(training_step(state, loss_fn, loader.batch(len(lrs), 1.0), sweep.micro_batch))
            pacer.count_finished(1)
            if not isfinite(loss):
                return suggest_lr(lrs, losses, diverged=True)
            lrs.append(lr)
            losses.append(loss)
            notify(len(lrs), lr, loss)
            if has_diverged(losses):
                return suggest_lr(lrs, losses, diverged=True)
        return suggest_lr(lrs, losses, diverged=False)
    finally:
        state.restore(before)


def has_diverged(losses: list[float]) -> bool:
    """Whether the loss has risen so far that larger learning rates need not be tried."""
    if len(losses) < MIN_STEPS:
        return False
    medians = np.median(np.lib.stride_tricks.sliding_window_view(losses, MEDIAN_WINDOW), 1)
    return bool(medians[-1] > max(medians[0], DIVERGENCE_FACTOR * medians.min()))


def suggest_lr(lrs: list[float], losses: list[float], diverged: bool) -> LRRangeTest:
    """Suggest a learning rate and an upper bound from the losses of a range test.

    The bound is the learning rate of the lowest smoothed loss. The suggestion is the geometric mean of the bound and of
    the learning rate at which the loss of the untrained network falls fastest: a one-cycle policy reaches its maximum
    with a network that has been trained for a while.
    """
    rates, values = np.array(lrs), np.array(losses)
    if len(rates) < MIN_STEPS:
        diverging = f"the loss was no number after {len(rates)} steps: begin with smaller learning rates"
        short = f"{len(rates)} steps are too few for a suggestion: give more time"
        return LRRangeTest(rates, values, values, diverged, None, None, diverging if diverged else short)
    decades = np.log10(rates)
    smoothed = smooth(decades, values)
    lowest = int(smoothed.argmin())
    fall = smoothed[: lowest + 1].max() - smoothed[lowest]
    weights = _weights(decades)
    noise = 1.48 * np.median(np.abs(values - smoothed)) * sqrt(float((weights**2).sum(1).mean()))
    if fall <= MIN_FALL_TO_NOISE * noise:
        return LRRangeTest(rates, values, smoothed, diverged, None, None, "the loss never fell by more than its noise")
    slopes = np.gradient(smoothed, decades)
    steepest = int(slopes[: lowest + 1].argmin())
    risen = smoothed[lowest:].max() - smoothed[lowest] > MIN_RISE_SHARE * fall
    bound, ending = None, f"still falls at {rates[-1]:.2g}, the largest learning rate tried"
    if risen:
        bound = float(rates[lowest])
        ending = f"rises from {bound:.2g} on"
    suggestion = float(sqrt(rates[steepest] * rates[lowest]))
    reason = f"the loss falls fastest at {rates[steepest]:.2g} and {ending}: halfway between these two"
    return LRRangeTest(rates, values, smoothed, diverged, suggestion, bound, reason)


def smooth(decades: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth the values over neighbouring learning rates, in decades. Returns float64 (N,)."""
    return np.asarray(_weights(decades) @ values)


def _weights(decades: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian smoothing weights, float64 (N, N); each row sums to one."""
    weights = np.exp(-0.5 * ((decades[:, None] - decades[None, :]) / SMOOTHING_DECADES) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))
