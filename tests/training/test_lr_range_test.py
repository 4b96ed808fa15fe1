"""The learning-rate range test: restored state, end of the test, and suggestions from loss curves."""

import numpy as np
import pytest
import torch

from timebox.builders import build_model
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.optim.loss import Loss
from timebox.runtime.precision import Precision
from timebox.training.lr_range_test import (
    MIN_STEPS,
    LRSweep,
    SweepPacer,
    has_diverged,
    lr_range_test,
    smooth,
    suggest_lr,
)
from timebox.training.pacer import StepPacer
from timebox.training.state import TrainingState
from tiny import CPU, bands, tiny_recipe


def curve(steepest: float, bound: float, low: float = 1e-4, high: float = 1e2, noise: float = 0.0):
    """Learning rates and losses that fall from 2.3 around ``steepest`` and rise from ``bound`` on."""
    lrs = np.geomspace(low, high, 120)
    x = np.log10(lrs)
    fall = 1.5 / (1 + np.exp(-5 * (x - np.log10(steepest))))
    losses = 2.3 - fall + np.clip(x - np.log10(bound), 0, None) ** 2 * 4
    return list(lrs), list(losses + noise * np.random.default_rng(0).normal(size=120))


def test_the_training_state_is_restored():
    recipe = tiny_recipe()
    torch.manual_seed(0)
    state = TrainingState(build_model(recipe, 3, 3).train(), recipe, Precision("fp32", CPU))
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    half = torch.full((3,), 0.5)
    images, statistics = ResidentImages.from_dataset(bands(100), CPU), ChannelStatistics(half, half / 2)
    loader = DeviceLoader(images, statistics, Augmentation(1), Sampling(16, seed=0))
    notes = []
    test = lr_range_test(
        state,
        loader,
        Loss(0.0),
        StepPacer(60),
        LRSweep(1e-4, 1e3, momentum=0.9, micro_batch=16),
        lambda step, lr, loss: notes.append((step, lr, loss)),
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    assert (state.step, state.progress) == (0, 0.0)
    assert [step for step, _, _ in notes] == list(range(1, len(test.lrs) + 1))
    ratios = test.lrs[1:] / test.lrs[:-1]
    assert ratios == pytest.approx(np.full(len(ratios), 1e7 ** (1 / 60)))
    assert test.suggestion is not None
    assert 1e-3 < test.suggestion < 10


def test_the_suggestion_lies_between_the_steepest_fall_and_the_bound():
    test = suggest_lr(*curve(0.01, 1.0), diverged=False)
    assert 0.2 < test.bound <= 1.0
    assert test.suggestion == pytest.approx((0.01 * test.bound) ** 0.5, rel=0.3)
    assert "falls fastest at 0.01" in test.reason


def test_noise_changes_the_suggestion_little():
    quiet, noisy = (
        suggest_lr(*curve(0.01, 1.0), diverged=False),
        suggest_lr(*curve(0.01, 1.0, noise=0.1), diverged=False),
    )
    assert noisy.suggestion == pytest.approx(quiet.suggestion, rel=0.5)


def test_a_loss_that_only_falls_has_no_bound():
    test = suggest_lr(*curve(0.01, 1e9), diverged=False)
    assert test.bound is None
    assert test.suggestion is not None
    assert "still falls" in test.reason


def test_a_loss_that_never_falls_has_no_suggestion():
    lrs, _ = curve(0.01, 1.0)
    flat = list(2.3 + 0.1 * np.random.default_rng(0).normal(size=120))
    assert suggest_lr(lrs, flat, diverged=False).suggestion is None
    rising = list(2.3 + np.linspace(0, 3, 120))
    assert suggest_lr(lrs, rising, diverged=True).suggestion is None


@pytest.mark.parametrize(("diverged", "reason"), [(True, "no number after 5"), (False, "5 steps are too few")])
def test_too_few_steps_give_no_suggestion(diverged, reason):
    test = suggest_lr([1.0] * 5, [2.3] * 5, diverged)
    assert (test.suggestion, test.bound) == (None, None)
    assert reason in test.reason


def test_a_loss_has_diverged_only_above_the_first_loss():
    fallen = list(np.linspace(2.3, 1.0, MIN_STEPS))
    assert not has_diverged(fallen)
    assert not has_diverged([*fallen, *[2.0] * 5])
    assert has_diverged([*fallen, *[2.5] * 5])
    assert not has_diverged([*fallen, 9.0, 1.0, 1.0, 1.0, 1.0])
    assert not has_diverged([2.3, 9.0])


def test_smoothing_keeps_a_line_and_reduces_noise():
    decades = np.linspace(-3, 2, 100)
    line = 3 - 0.2 * decades
    assert smooth(decades, line)[10:-10] == pytest.approx(line[10:-10], abs=1e-3)
    noise = np.random.default_rng(0).normal(size=100)
    assert smooth(decades, noise).std() < 0.6 * noise.std()


NUM_STEPS = 200


@pytest.mark.parametrize(
    ("step_seconds", "slower_at", "num_steps"), [(0.01, 1e9, NUM_STEPS), (0.01, 1.0, 150), (0.1, 1e9, 100)]
)
def test_a_sweep_has_its_number_of_steps_or_ends_in_time(step_seconds, slower_at, num_steps):
    """At the planned speed, on a machine that becomes ten times slower, and where there is time for fewer."""
    time, budget, steps = 0.0, 10.0, 0
    pacer = SweepPacer(NUM_STEPS, lambda: budget - time, step_seconds, lambda: time)
    progress = 0.0
    while (reached := pacer.next(0)) is not None:
        assert reached > progress
        time, steps, progress = time + step_seconds * (10 if time >= slower_at else 1), steps + 1, reached
        pacer.count_finished(1)
    assert progress == 1.0
    assert time <= budget
    assert steps == NUM_STEPS if num_steps == NUM_STEPS else 0.6 * num_steps <= steps <= 1.3 * num_steps
