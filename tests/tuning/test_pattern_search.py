"""Where a search looks next."""

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from timebox.recipe import Value, parse_recipe
from timebox.tuning import study as studies
from timebox.tuning.pattern_search import MOVED, Move, next_move
from timebox.tuning.space import Space, default_space

DRAFT = parse_recipe("auto")
SPACE = default_space(DRAFT)
NEUTRAL = SPACE.neutral(DRAFT.base)
Accuracy = Callable[[dict[str, Value]], float]


def started(probes: bool = True) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=1))
    studies.enqueue(study, NEUTRAL, (), ())
    if probes:
        for name, params in SPACE.probes(NEUTRAL):
            studies.enqueue(study, params, SPACE.settings(params, (name,)), (name,))
    return study


def carried_out(study: optuna.Study, accuracy: Accuracy, num: int, space: Space = SPACE) -> list[Move | None]:
    """As a worker does it; the moves made."""
    rng, base, moves = np.random.default_rng(0), study.sampler, []
    for _ in range(num):
        waiting = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        move = None if waiting else next_move(study, space, rng)
        study.sampler = move.sampler(base) if move else base
        trial = study.ask()
        params = {dimension.name: dimension.suggested(trial) for dimension in space.dimensions}
        if move:
            trial.set_user_attr(MOVED, move.record)
        trial.report(accuracy(params), 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        moves.append(move)
    return moves


def spoilt(params: dict[str, Value]) -> float:
    """Best where batch and rate are a twentieth of the start's; nothing else matters."""
    off = sum(math.log(float(params[name]) * times) ** 2 for name, times in (("batch_size", 6), ("max_lr", 10)))
    return 0.9 - 0.03 * off


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_before_anything_is_known_there_is_no_move() -> None:
    assert next_move(started(), SPACE, np.random.default_rng(0)) is None


def test_probes_that_gained_are_combined_once() -> None:
    study = started()
    num = 1 + len(SPACE.probes(NEUTRAL))
    carried_out(study, spoilt, num)
    (move,) = carried_out(study, spoilt, 1)
    assert move is not None
    assert set(move.moved) == {"batch_size", "max_lr"}
    assert study.trials[-1].params == {
        **NEUTRAL, "batch_size": pytest.approx(8**-0.5), "max_lr": pytest.approx(1 / 4),
    }  # fmt: skip
    (move,) = carried_out(study, spoilt, 1)
    assert move is not None
    assert move.parent == num  # and made once more, as it gained
    assert study.trials[-1].params["batch_size"] == pytest.approx(1 / 8)
    assert study.trials[-1].params["max_lr"] == pytest.approx(1 / 16)


def test_a_spoilt_start_is_mended_in_a_few_trials() -> None:
    study = started()
    carried_out(study, spoilt, 25)
    best = max(trial.intermediate_values[1] for trial in study.trials)
    assert spoilt(NEUTRAL) < 0.7 < 0.88 < best


def test_a_few_fields_are_moved_at_a_time_those_that_matter_more_often() -> None:
    study = started()
    moves = carried_out(study, spoilt, 60)
    drawn = [move for move in moves[14:] if move]
    assert all(1 <= len(move.moved) <= 3 for move in drawn)
    counts = {name: sum(name in move.moved for move in drawn) for name in NEUTRAL}
    others = [count for name, count in counts.items() if name not in ("batch_size", "max_lr")]
    assert min(counts["batch_size"], counts["max_lr"]) > 2 * np.mean(others)
    for trial, move in zip(study.trials[14:], moves[14:], strict=True):
        if move:
            parent = study.trials[move.parent]
            assert {name for name in NEUTRAL if trial.params[name] != parent.params[name]} <= set(move.moved)


def test_where_nothing_gains_it_stays_near_the_start() -> None:
    study = started()
    moves = carried_out(study, lambda params: 0.9 if params == NEUTRAL else 0.8, 20)
    assert {move.parent for move in moves[12:] if move} == {0}
