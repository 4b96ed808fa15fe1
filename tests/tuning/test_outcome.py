"""Results of a search: candidates, best.toml, importance and messages."""

from pathlib import Path

import optuna
from msgspec.structs import replace

from timebox.recipes import Multiplier, parse_recipe
from timebox.tuning.outcome import Candidate, best_toml, candidates_of, importance_of, trial_text
from timebox.tuning.space import default_space
from timebox.tuning.study import SearchTrial

from .test_study import new_study, run_trial


def test_best_toml_reads_back_equal(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    draft = parse_recipe("auto", ["max_lr=x0.5", "label_smoothing=0.1", "policy=one_cycle"])
    file.write_text(best_toml(draft))
    read = parse_recipe(str(file))
    assert read.fixed is None
    assert read.overrides == {**draft.overrides, "name": "best"}
    assert read.overrides["max_lr"] == Multiplier(0.5)
    file.write_text(best_toml(parse_recipe(str(file), ["max_lr=x3"])))
    assert parse_recipe(str(file)).overrides["max_lr"] == Multiplier(1.5)


def test_best_toml_of_a_fixed_recipe_has_all_fields(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    file.write_text(best_toml(parse_recipe("haet2021", ["max_lr=x0.5"])))
    recipe = parse_recipe(str(file)).fixed
    assert recipe is not None
    assert (recipe.name, recipe.max_lr) == ("best", 0.5)


def test_candidates_are_the_starting_recipe_and_the_top_trials() -> None:
    study = new_study()
    run_trial(study, [], [0.5, 0.9], complete=True)
    run_trial(study, ["max_lr=x2"], [0.5, 0.8], complete=True)
    run_trial(study, ["max_lr=x3"], [0.5, 0.7], complete=True)
    assert candidates_of(study, 1) == [Candidate(None, ()), Candidate(1, ("max_lr=x2",))]
    assert candidates_of(study, 0) == [Candidate(None, ())]
    assert [one.text for one in candidates_of(study, 1)] == ["the starting recipe", "trial 1 (max_lr=x2)"]


def test_importance_is_highest_for_the_only_field_with_an_effect() -> None:
    space = default_space(parse_recipe("haet2021"))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        trial = study.ask()
        params = space.suggest(trial)
        trial.report(0.5 + 0.1 * float(params["label_smoothing"]), 1)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        if len(study.trials) == 5:
            assert importance_of(study, space) == {}
    shares = importance_of(study, space)
    assert max(shares, key=lambda name: shares[name]) == "label_smoothing"
    assert abs(sum(shares.values()) - 1) < 1e-6


def test_trial_text() -> None:
    line = SearchTrial(
        phase="search", trial=3, state="stopped", accuracy=0.8125, budget_seconds=5.0, settings=("a=1",), params={},
        worker=None, seconds=None, retry_of=None, reason=None, trainings=(),
    )  # fmt: skip
    assert trial_text(line) == "trial   3  81.25% in 5s  a=1"
    failed = replace(line, accuracy=None, reason="out of memory", settings=())
    assert trial_text(failed) == "trial   3  out of memory  the starting recipe"
