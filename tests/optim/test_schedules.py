"""Learning rate and momentum schedules at their knots and between them."""

from itertools import pairwise
from typing import get_args, get_type_hints

import pytest

from timebox.optim.schedules import one_cycle, piecewise_linear, triangular
from timebox.recipes import Recipe, get_recipe
from timebox.training.schedule import lr_and_momentum_at

RECIPE = get_recipe("haet2021").replace(
    max_lr=2.0,
    start_fraction=0.1,
    end_fraction=0.01,
    peak_at=0.4,
    down_at=0.8,
    num_cycles=3,
    max_momentum=0.95,
    min_momentum=0.85,
)
POLICIES: tuple[str, ...] = get_args(get_type_hints(Recipe)["policy"])
GRID = [i / 240 for i in range(241)]


def lr(progress: float, policy: str, **changed: float) -> float:
    return lr_and_momentum_at(RECIPE.replace(policy=policy, **changed), progress)[0]


def momentum(progress: float, policy: str) -> float:
    return lr_and_momentum_at(RECIPE.replace(policy=policy), progress)[1]


@pytest.mark.parametrize(
    ("policy", "knots"),
    [
        ("one_cycle", {0: 0.2, 0.2: 1.1, 0.4: 2.0, 0.6: 1.1, 0.8: 0.2, 0.9: 0.11, 1: 0.02}),
        ("piecewise", {0: 0.2, 0.2: 1.1, 0.4: 2.0, 0.6: 1.01, 0.8: 0.02, 0.9: 0.02, 1: 0.02}),
        ("triangular", {0: 0.2, 1 / 6: 2.0, 1 / 3: 0.2, 1 / 2: 2.0, 2 / 3: 0.2, 5 / 6: 2.0, 1: 0.2, 1 / 12: 1.1}),
        ("constant", {0: 2.0, 0.5: 2.0, 1: 2.0}),
    ],
)
def test_learning_rates_at_their_knots(policy: str, knots: dict[float, float]) -> None:
    for progress, expected in knots.items():
        assert lr(progress, policy) == pytest.approx(expected), progress


@pytest.mark.parametrize(
    ("policy", "knots"),
    [
        ("one_cycle", {0: 0.95, 0.2: 0.9, 0.4: 0.85, 0.6: 0.9, 0.8: 0.95, 1: 0.95}),
        ("triangular", {0: 0.95, 1 / 6: 0.85, 1 / 3: 0.95, 1: 0.95, 1 / 12: 0.9}),
        ("piecewise", {0: 0.95, 0.4: 0.95, 1: 0.95}),
        ("constant", {0: 0.95, 0.4: 0.95, 1: 0.95}),
    ],
)
def test_momentum_at_its_knots(policy: str, knots: dict[float, float]) -> None:
    for progress, expected in knots.items():
        assert momentum(progress, policy) == pytest.approx(expected), progress


@pytest.mark.parametrize("policy", ["one_cycle", "triangular"])
def test_momentum_never_moves_in_the_direction_of_the_learning_rate(policy: str) -> None:
    rates, momenta = [lr(p, policy) for p in GRID], [momentum(p, policy) for p in GRID]
    moves = [(b - a, d - c) for (a, b), (c, d) in zip(pairwise(rates), pairwise(momenta), strict=True)]
    assert len(moves) == 240
    assert all(up * down <= 1e-12 for up, down in moves)
    assert momenta[rates.index(max(rates))] == pytest.approx(0.85)


@pytest.mark.parametrize("policy", POLICIES)
def test_learning_rate_and_momentum_stay_in_range(policy: str) -> None:
    assert len(POLICIES) == 4
    assert all(0.02 - 1e-12 <= lr(p, policy) <= 2.0 + 1e-12 for p in GRID)
    assert all(0.85 - 1e-12 <= momentum(p, policy) <= 0.95 + 1e-12 for p in GRID)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_jumps(policy: str) -> None:
    assert max(abs(b - a) for a, b in pairwise(lr(p, policy) for p in GRID)) < 2.0 * 6 / 240 + 1e-9


def test_piecewise_linear_is_constant_beyond_its_ends() -> None:
    assert [piecewise_linear(p, (0.2, 0.6), (1.0, 3.0)) for p in (0.0, 0.2, 0.4, 0.6, 1.0)] == [1, 1, 2, 3, 3]


def test_a_peak_at_progress_0_and_an_end_at_progress_1() -> None:
    assert lr(0.001, "one_cycle", peak_at=0.0) == pytest.approx(2.0, rel=0.01)
    assert lr(1.0, "piecewise", down_at=1.0) == pytest.approx(0.02)


def test_one_cycle_reaches_its_end_without_annealing() -> None:
    assert lr(1.0, "one_cycle", down_at=1.0) == pytest.approx(0.02)


def test_one_cycle_annealing_to_zero_ends_at_exactly_zero() -> None:
    assert one_cycle(1.0, 0.1, 1.0, 0.0, 0.4, 0.85) == 0.0


def test_a_triangle_is_symmetric() -> None:
    for phase in (0.1, 0.25, 0.4):
        assert triangular(phase, 1, 5, 1) == pytest.approx(triangular(1 - phase, 1, 5, 1))
