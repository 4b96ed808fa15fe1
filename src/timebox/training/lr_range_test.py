"""The learning-rate range test: rates from far too small to far too large, a step at each, and what the loss did."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from timebox.data.device.loader import DeviceLoader
from timebox.optim.loss import Loss
from timebox.training.pacer import Pacer
from timebox.training.state import TrainingState
from timebox.training.step import training_step

# The test ends where the loss is above the first one again, and so many times its least.
DIVERGED = 1.5
# The median of so many losses decides: a single batch may be hard.
LATEST = 5
# Losses are smoothed by a Gaussian with this deviation, in decades of the rate.
SMOOTHED_DECADES = 0.2
# The smoothed loss must fall by so many times what chance moves it by.
BEYOND_CHANCE = 6.0
# The loss rises where it has come back by this share of its fall.
RISEN = 0.05
# Fewer steps tell nothing.
MIN_STEPS = 20


@dataclass(frozen=True, eq=False)
class LRRangeTest:
    """What a range test saw (L. Smith, "Cyclical learning rates for training neural networks", arXiv 1506.01186).

    Attributes:
        lrs: float64 (N,), the rate of each step, rising.
        losses: float64 (N,), the loss of each step's batch before it was taken.
        smoothed: float64 (N,), the mean of the losses at rates near each.
        diverged: whether the test ended because the loss rose, not because the rates did.
        suggestion: the rate to take for ``max_lr``; None where the loss never fell.
        bound: the rate at which the loss is least: from there on it rises; None where it never rose.
        reason: why these two, in a sentence.
    """

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    diverged: bool
    suggestion: float | None
    bound: float | None
    reason: str


def lr_range_test(
    state: TrainingState,
    loader: DeviceLoader,
    loss_fn: Loss,
    pacer: Pacer,
    low: float,
    high: float,
    momentum: float,
    micro_batch: int,
    notify: Callable[[int, float, float], None] = lambda step, lr, loss: None,
) -> LRRangeTest:
    """Take a step at each of many rates, from ``low`` to ``high``, evenly spaced in their logarithm, until the loss
    rises; the training is then put back to where it stood.

    Args:
        pacer: says how far, 0...1, from the lowest to the highest rate each step goes.
        low, high: rates above 0, the first below the second.
        momentum: of all steps, above 0 and below 1.
        micro_batch: images computed at once.
        tell: is told the number, the rate and the loss of each step.
    """
    before = state.snapshot()
    lrs: list[float] = []
    losses: list[float] = []
    try:
        while (progress := pacer.next(0)) is not None:
            lr = low * (high / low) ** progress
            state.optimizer.prepare(lr, momentum, before.progress)
            batch = loader.batch(len(lrs), 1.0)
            loss = float(training_step(state.model, state.optimizer, batch, state.precision, loss_fn, micro_batch))
            pacer.finished(1)
            if not isfinite(loss):
                return suggest_lr(lrs, losses, diverged=True)
            lrs.append(lr)
            losses.append(loss)
            notify(len(lrs), lr, loss)
            if diverged_loss(losses):
                return suggest_lr(lrs, losses, diverged=True)
        return suggest_lr(lrs, losses, diverged=False)
    finally:
        state.restore(before)


def diverged_loss(losses: list[float]) -> bool:
    """Whether the loss has risen so far that larger rates need not be tried."""
    if len(losses) < MIN_STEPS:
        return False
    medians = np.median(np.lib.stride_tricks.sliding_window_view(losses, LATEST), 1)
    return bool(medians[-1] > max(medians[0], DIVERGED * medians.min()))


def suggest_lr(lrs: list[float], losses: list[float], diverged: bool) -> LRRangeTest:
    """A suggestion and a bound from the losses of a range test.

    The bound is where the smoothed loss is least. The suggestion lies halfway, in the logarithm, between the rate at
    which the loss falls fastest and the bound: at the first a network learns well from the start, beyond the second not
    at all; one-cycle policies come to their peak with a network that is past the start.
    """
    rates, values = np.array(lrs), np.array(losses)
    if len(rates) < MIN_STEPS:
        diverging = f"the loss was no number after {len(rates)} steps: begin with smaller rates"
        short = f"{len(rates)} steps are too few to tell: give more time"
        return LRRangeTest(rates, values, values, diverged, None, None, diverging if diverged else short)
    decades = np.log10(rates)
    smoothed = smooth(decades, values)
    lowest = int(smoothed.argmin())
    fall = smoothed[: lowest + 1].max() - smoothed[lowest]
    weights = _weights(decades)
    noise = 1.48 * np.median(np.abs(values - smoothed)) * sqrt(float((weights**2).sum(1).mean()))
    if fall <= BEYOND_CHANCE * noise:
        return LRRangeTest(rates, values, smoothed, diverged, None, None, "the loss never fell by more than its noise")
    slopes = np.gradient(smoothed, decades)
    steepest = int(slopes[: lowest + 1].argmin())
    risen = smoothed[lowest:].max() - smoothed[lowest] > RISEN * fall
    bound = float(rates[lowest]) if risen else None
    suggestion = float(sqrt(rates[steepest] * rates[lowest]))
    fastest = f"the loss falls fastest at {rates[steepest]:.2g}"
    if bound is None:
        reason = f"{fastest} and still falls at {rates[-1]:.2g}, the largest rate tried: halfway between these two"
    else:
        reason = f"{fastest} and rises from {bound:.2g} on: halfway between these two"
    return LRRangeTest(rates, values, smoothed, diverged, suggestion, bound, reason)


def smooth(decades: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the values near each, float64 (N,)."""
    return np.asarray(_weights(decades) @ values)


def _weights(decades: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each value adds to the mean near each other one: float64 (N, N), rows adding up to one."""
    weights = np.exp(-0.5 * ((decades[:, None] - decades[None, :]) / SMOOTHED_DECADES) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True))
