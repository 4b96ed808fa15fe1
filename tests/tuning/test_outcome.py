"""What came of a search, in words and files."""

from pathlib import Path

import optuna

from timebox.recipe import Multiplier, parse_recipe
from timebox.tuning.outcome import Candidate, best_toml, candidates_of, importance_of, trial_text
from timebox.tuning.space import default_space

from .test_study import carried_out, made


def test_the_best_recipe_reads_back_as_it_was_found(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    found = parse_recipe("auto", ["max_lr=x0.5", "label_smoothing=0.1", "policy=one_cycle"])
    file.write_text(best_toml(found))
    read = parse_recipe(str(file))
    assert read.fixed is None
    assert read.overrides == {**found.overrides, "name": "best"}
    assert read.overrides["max_lr"] == Multiplier(0.5)
    file.write_text(best_toml(parse_recipe(str(file), ["max_lr=x3"])))
    assert parse_recipe(str(file)).overrides["max_lr"] == Multiplier(1.5)


def test_a_fixed_recipe_is_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    file.write_text(best_toml(parse_recipe("haet2021", ["max_lr=x0.5"])))
    recipe = parse_recipe(str(file)).fixed
    assert recipe is not None
    assert (recipe.name, recipe.max_lr) == ("best", 0.5)


def test_what_was_started_from_comes_first() -> None:
    study = made()
    carried_out(study, [], [0.5, 0.9], complete=True)
    carried_out(study, ["max_lr=x2"], [0.5, 0.8], complete=True)
    carried_out(study, ["max_lr=x3"], [0.5, 0.7], complete=True)
    assert candidates_of(study, 1) == [Candidate(None, ()), Candidate(1, ("max_lr=x2",))]
    assert candidates_of(study, 0) == [Candidate(None, ())]
    assert [one.text for one in candidates_of(study, 1)] == ["what was started from", "trial 1 (max_lr=x2)"]


def test_importance_is_that_of_the_field_that_matters() -> None:
    space = default_space(parse_recipe("haet2021"))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        params = {dimension.name: dimension.suggested(trial) for dimension in space.dimensions}
        trial.report(0.5 + 0.1 * float(params["label_smoothing"]), 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if len(study.trials) == 5:
            assert importance_of(study, space) == {}
    shares = importance_of(study, space)
    assert max(shares, key=lambda name: shares[name]) == "label_smoothing"
    assert abs(sum(shares.values()) - 1) < 1e-6


def test_a_trial_is_told_in_a_line() -> None:
    line = {
        "trial": 3,
        "accuracy": 0.8125,
        "budget_seconds": 5.0,
        "settings": ["a=1"],
        "reason": None,
        "state": "stopped",
    }
    assert trial_text(line) == "trial   3  81.25% in 5s  a=1"
    failed = {**line, "accuracy": None, "reason": "out of memory", "settings": []}
    assert trial_text(failed) == "trial   3  out of memory  what was started from"
