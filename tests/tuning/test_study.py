"""The Optuna study of a search."""

from dataclasses import replace

import optuna
import pytest

from timebox.configs.data import DataConfig
from timebox.errors import UsageError
from timebox.recipes import parse_recipe
from timebox.tuning import study as studies
from timebox.tuning.pattern_search import sampler_for
from timebox.tuning.space import default_space
from timebox.tuning.study import REASON, REDUCTION_FACTOR, SETTINGS, WORKER, SearchSpec

SPACE = default_space(parse_recipe("auto"))


def search(**changes: object) -> SearchSpec:
    values = {
        "source": DataConfig("digits"), "data_sha256": "0", "recipe": "auto", "settings": (), "space": SPACE.to_json(),
        "sampler": "tpe", "seed": 0, "precision": "fp32", "image_size": 8, "image_fit": "crop",
        "val_is_apart": False, "num_images": 100, "rungs": (5.0, 15.0), "ends_at": 0.0,
    }  # fmt: skip
    return SearchSpec(**{**values, **changes})  # type: ignore[arg-type]


def new_study(**changes: object) -> optuna.Study:
    storage = optuna.storages.InMemoryStorage()
    studies.create(storage, "s", search(**changes))
    return studies.load(storage, "s")[0]


def run_trial(study: optuna.Study, settings: list[str], accuracies: list[float], complete: bool) -> None:
    trial = study.ask()
    trial.set_user_attr(SETTINGS, settings)
    for scale, accuracy in enumerate(accuracies):
        trial.report(accuracy, REDUCTION_FACTOR**scale)
    if complete:
        study.tell(trial, accuracies[-1])
    else:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def test_a_spec_reads_back_equal() -> None:
    storage = optuna.storages.InMemoryStorage()
    spec = search(settings=("max_lr=x2",))
    studies.create(storage, "s", spec)
    assert studies.load(storage, "s")[1] == spec
    postponed = studies.set_end(studies.load(storage, "s")[0], spec, 5.0)
    assert studies.load(storage, "s")[1] == postponed == replace(spec, ends_at=5.0)


def test_names_and_versions_are_checked() -> None:
    storage = optuna.storages.InMemoryStorage()
    studies.create(storage, "s", search())
    with pytest.raises(UsageError, match="in the storage already"):
        studies.create(storage, "s", search())
    with pytest.raises(UsageError, match="not in the storage"):
        studies.load(storage, "t")
    studies.create(storage, "old", search(version="0.0.1"))
    with pytest.raises(UsageError, match=r"timebox 0\.0\.1"):
        studies.load(storage, "old")
    assert studies.adopt_version(storage, "old") == "0.0.1"
    assert studies.load(storage, "old")[1] == search()
    optuna.create_study(study_name="alien", storage=storage)
    with pytest.raises(UsageError, match="no study of timebox"):
        studies.load(storage, "alien")


def test_workers_draw_different_values_and_the_same_worker_the_same() -> None:
    def first(seed: int, worker: int) -> float:
        study = optuna.create_study(sampler=sampler_for(search(seed=seed, sampler="random"), worker))
        return study.ask().suggest_float("x", 0, 1)

    assert first(0, 0) == first(0, 0)
    assert len({first(0, 0), first(0, 1), first(1, 0), first(1, 1)}) == 4


def test_orphaned_trials_are_those_of_dead_workers() -> None:
    study = new_study()
    for worker in ("a", "b", None):
        trial = study.ask()
        if worker:
            trial.set_user_attr(WORKER, worker)
    assert [trial.number for trial in studies.orphaned_trials(study, ["a"], include_unclaimed=True)] == [0]


def test_a_retried_trial_keeps_its_values_and_accuracies() -> None:
    study = new_study()
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr(SETTINGS, ["x"])
    trial.report(0.5, 1)
    studies.fail_trial(study, study.trials[0], retry=True)
    failed, waiting = study.trials
    assert failed.state == optuna.trial.TrialState.FAIL
    assert waiting.state == optuna.trial.TrialState.WAITING
    assert (waiting.params, waiting.user_attrs, waiting.intermediate_values) == (
        failed.params, failed.user_attrs, failed.intermediate_values,
    )  # fmt: skip
    assert study.ask().number == 1
    assert studies.trial_record(search(), failed).retry_of is None
    studies.fail_trial(study, study.trials[1], retry=False)
    assert len(study.trials) == 2
    assert studies.trial_record(search(), study.trials[1]).retry_of == 0


def test_a_finished_trial_is_not_failed() -> None:
    study = new_study()
    running = study.ask()
    seen = study.trials[0]
    study.tell(running, 1.0)
    studies.fail_trial(study, seen, retry=True)
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE]


def test_best_trials_rank_by_rung_then_accuracy_without_duplicates() -> None:
    study = new_study()
    run_trial(study, ["a"], [0.9], complete=False)
    run_trial(study, ["b"], [0.5, 0.6], complete=True)
    run_trial(study, ["c"], [0.5, 0.7], complete=True)
    run_trial(study, ["c"], [0.5, 0.65], complete=True)
    assert [trial.user_attrs[SETTINGS] for trial in studies.best_trials(study)] == [["c"], ["b"], ["a"]]


def test_of_two_duplicates_one_is_found() -> None:
    study = new_study()
    run_trial(study, ["a"], [0.5], complete=False)
    first, second = study.ask(), study.ask()
    first.set_user_attr(SETTINGS, ["b"])
    second.set_user_attr(SETTINGS, ["b"])
    assert [studies.find_duplicate(study, number, ["b"]) for number in (0, 1, 2)] == [None, None, 1]
    second.set_user_attr(WORKER, "w")  # its worker has checked for duplicates already, and trains
    assert studies.find_duplicate(study, 1, ["b"]) == 2
    study.tell(second, state=optuna.trial.TrialState.FAIL)
    assert [studies.find_duplicate(study, 1, settings) for settings in (["a"], ["b"], ["c"])] == [0, None, None]


def test_a_skipped_duplicate_does_not_block_a_retry() -> None:
    """The trial that it duplicates may die and be retried."""
    study = new_study()
    first = study.ask()
    first.set_user_attr(SETTINGS, ["a"])
    run_trial(study, ["a"], [], complete=False)
    studies.fail_trial(study, study.trials[0], retry=True)
    assert study.ask().number == 2
    assert studies.find_duplicate(study, 2, ["a"]) is None


def test_trial_record() -> None:
    study = new_study()
    run_trial(study, ["a"], [0.5], complete=False)
    line = studies.trial_record(search(), study.trials[0])
    assert (line.state, line.accuracy, line.budget_seconds, line.settings) == ("stopped", 0.5, 5.0, ("a",))
    trial = study.ask()
    trial.set_user_attr(REASON, "diverged")
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    line = studies.trial_record(search(), study.trials[1])
    assert (line.accuracy, line.budget_seconds, line.reason) == (None, None, "diverged")
