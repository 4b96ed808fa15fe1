"""The pattern search around the incumbent."""

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest

from timebox.recipes import Value, parse_recipe
from timebox.tuning import study as studies
from timebox.tuning.pattern_search import STEP, PatternSearchSampler, next_step
from timebox.tuning.space import default_space

DRAFT = parse_recipe("auto")
SPACE = default_space(DRAFT)
START = SPACE.start_values(DRAFT.base)
Accuracy = Callable[[dict[str, Value]], float]


def started() -> optuna.Study:
    base = optuna.samplers.TPESampler(seed=0, n_startup_trials=1)
    sampler = PatternSearchSampler(SPACE, base, np.random.default_rng(0))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    studies.enqueue(study, START, (), ())
    for name, params in SPACE.screening_trials(START):
        studies.enqueue(study, params, SPACE.settings(params, (name,)), (name,))
    return study


def run_trials(study: optuna.Study, accuracy: Accuracy, num: int) -> list[tuple[int, list[str]] | None]:
    """Run trials as a worker does; returns parent and changed fields of each that was not enqueued."""
    steps: list[tuple[int, list[str]] | None] = []
    for _ in range(num):
        is_enqueued = bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)))
        trial = study.ask()
        trial.report(accuracy(SPACE.suggest(trial)), 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        steps.append(None if is_enqueued else study.trials[-1].user_attrs[STEP])
    return steps


def accuracy_far_from_start(params: dict[str, Value]) -> float:
    """Accuracy that is best at a sixth of the planned batch and a tenth of the rate; no other field has an effect."""
    off = sum(math.log(float(params[name]) * times) ** 2 for name, times in (("batch_size", 6), ("max_lr", 10)))
    return 0.9 - 0.03 * off


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_without_a_measured_trial_there_is_no_step() -> None:
    assert next_step(started(), SPACE, np.random.default_rng(0)) is None


def test_improving_fields_are_combined_once_then_the_step_is_repeated() -> None:
    study = started()
    num = 1 + len(SPACE.screening_trials(START))
    assert run_trials(study, accuracy_far_from_start, num) == [None] * num
    (step,) = run_trials(study, accuracy_far_from_start, 1)
    assert step is not None
    assert set(step[1]) == {"batch_size", "max_lr"}
    assert study.trials[-1].params == {
        **START, "batch_size": pytest.approx(8**-0.5), "max_lr": pytest.approx(1 / 4),
    }  # fmt: skip
    (step,) = run_trials(study, accuracy_far_from_start, 1)
    assert step is not None
    assert step[0] == num
    assert study.trials[-1].params["batch_size"] == pytest.approx(1 / 8)
    assert study.trials[-1].params["max_lr"] == pytest.approx(1 / 16)


def test_a_bad_start_is_repaired_within_25_trials() -> None:
    study = started()
    run_trials(study, accuracy_far_from_start, 25)
    best = max(trial.intermediate_values[1] for trial in study.trials)
    assert accuracy_far_from_start(START) < 0.7 < 0.88 < best


def test_steps_change_up_to_three_fields_and_those_with_an_effect_more_often() -> None:
    study = started()
    steps = run_trials(study, accuracy_far_from_start, 60)[14:]
    drawn = [step for step in steps if step]
    assert all(1 <= len(fields) <= 3 for _, fields in drawn)
    counts = {name: sum(name in fields for _, fields in drawn) for name in START}
    others = [count for name, count in counts.items() if name not in ("batch_size", "max_lr")]
    assert min(counts["batch_size"], counts["max_lr"]) > 2 * np.mean(others)
    for trial, step in zip(study.trials[14:], steps, strict=True):
        if step:
            parent, fields = step
            assert {name for name in START if trial.params[name] != study.trials[parent].params[name]} <= set(fields)


def test_without_any_gain_trial_0_stays_the_parent() -> None:
    study = started()
    steps = run_trials(study, lambda params: 0.9 if params == START else 0.8, 20)
    assert {step[0] for step in steps[12:] if step} == {0}
