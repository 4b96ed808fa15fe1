"""The Optuna study of a search: its spec for the workers, and its trials."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

import optuna
from msgspec import Struct, to_builtins
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from timebox.configs.data import DataConfig
from timebox.errors import UsageError, option_text
from timebox.file_versions import FORMAT_KEY, TUNE_STUDY_FORMAT
from timebox.recipes import Value
from timebox.run.json_values import Count, RecipeFields, Seconds, Share, from_values
from timebox.tuning.space import Space
from timebox.tuning.storage import retry_callback
from timebox.tuning.trial import TrialResult
from timebox.version import VERSION

# Successive halving: one trial in three is promoted to the next rung, with three times the budget.
REDUCTION_FACTOR = 3
# User attributes of a trial. STEP: number of its parent trial, and the fields that were changed.
SETTINGS, WORKER, TRAININGS, REASON, STEP = "settings", "worker", "measured", "reason", "moved"
_SPEC = "timebox"
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
# A worker writes its name to a trial once the values are sampled, which takes milliseconds.
_MAX_UNCLAIMED = timedelta(seconds=3)


@dataclass(frozen=True)
class SearchSpec:
    """The settings of a search that its workers need; stored in the study.

    Attributes:
        data_sha256: of the training images.
        recipe, settings: the starting recipe.
        space: as :meth:`Space.to_json` returns it.
        val_is_apart: whether the final run has the same validation split (the data's own one, or a path); else none.
        num_images: training images of a trial.
        rungs: training budgets in seconds of a trial, ascending (Hyperband, Li et al. 2018).
        ends_at: when trials end, in seconds since 1970; 0 while the search is being set up.
    """

    source: DataConfig
    data_sha256: str
    recipe: str
    settings: tuple[str, ...]
    space: Sequence[Mapping[str, object]] = field(repr=False)
    sampler: str
    seed: int
    precision: str
    image_size: int | None
    image_fit: str
    val_is_apart: bool
    num_images: int
    rungs: tuple[float, ...]
    ends_at: float
    version: str = VERSION

    @property
    def seconds_left(self) -> float:
        """Seconds until trials end."""
        return self.ends_at - time.time()


class SearchTrial(Struct, frozen=True, kw_only=True):
    """A line of trials.jsonl: a trial of the search.

    Attributes:
        state: ``stopped`` where a larger budget was not worth it.
        accuracy: under the largest budget; null where nothing was measured.
        budget_seconds: the largest budget that the trial had.
        settings: the settings of the trial, as ``FIELD=VALUE`` texts.
        params: the values that the sampler chose, by field.
        retry_of: the trial that this one repeats after a failure of its worker.
        reason: of a failure, or of stopping the trial.
        trainings: a training for each budget.
    """

    phase: Literal["search"]
    trial: Count
    state: Literal["complete", "stopped", "failed"]
    accuracy: Share | None
    budget_seconds: Seconds | None
    settings: tuple[str, ...]
    params: RecipeFields
    worker: str | None
    seconds: Seconds | None
    retry_of: Count | None
    reason: str | None
    trainings: tuple[TrialResult, ...]


def create(storage: BaseStorage, name: str, spec: SearchSpec) -> optuna.Study:
    """Create a study. Raises UsageError where the storage has one of that name."""
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(
            f"study {name!r} is in the storage already: give `timebox tune --join` to work for it, or another "
            f"{option_text('study')}"
        ) from error
    _save_spec(study, spec)
    return study


def load(storage: BaseStorage, name: str) -> tuple[optuna.Study, SearchSpec]:
    """A study and its spec. Raises UsageError where there is none, or where another version created it."""
    study = _load_study(storage, name)
    study.pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION_FACTOR)
    return study, read_spec(study)


def read_spec(study: optuna.Study) -> SearchSpec:
    """The stored spec of a study. Raises UsageError where another version of timebox created the study."""
    spec = _read_any_spec(study)
    if spec.version != VERSION:
        raise UsageError(
            f"study {study.study_name!r} cannot be used: it is of timebox {spec.version}, this is {VERSION}"
        )
    return spec


def adopt_version(storage: BaseStorage, name: str) -> str:
    """Let this version of timebox continue a study; returns the version that created it. Raises as :func:`load`."""
    study = _load_study(storage, name)
    spec = _read_any_spec(study)
    if spec.version != VERSION:
        _save_spec(study, replace(spec, version=VERSION))
    return spec.version


def set_end(study: optuna.Study, spec: SearchSpec, ends_at: float) -> SearchSpec:
    """Store another end of the trials, in seconds since 1970."""
    return _save_spec(study, replace(spec, ends_at=ends_at))


def _save_spec(study: optuna.Study, spec: SearchSpec) -> SearchSpec:
    study.set_user_attr(_SPEC, TUNE_STUDY_FORMAT.numbered(to_builtins(spec)))
    return spec


def _load_study(storage: BaseStorage, name: str) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise UsageError(f"study {name!r} is not in the storage") from error


def _read_any_spec(study: optuna.Study) -> SearchSpec:
    stored, where = study.user_attrs.get(_SPEC), f"study {study.study_name!r}"
    if not isinstance(stored, dict) or "version" not in stored:
        raise UsageError(f"{where} cannot be used: it is no study of timebox")
    values = TUNE_STUDY_FORMAT.upgraded(stored, where)
    del values[FORMAT_KEY]
    return from_values(values, SearchSpec, where)


def enqueue(study: optuna.Study, params: Mapping[str, Value], settings: Sequence[str], fields: Sequence[str]) -> None:
    """Enqueue a trial of ``params``, written as ``settings``, in which ``fields`` differ from trial 0."""
    attributes: dict[str, object] = {SETTINGS: list(settings), **({STEP: [0, list(fields)]} if fields else {})}
    study.enqueue_trial(dict(params), user_attrs=attributes)


def running_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that are in progress, or whose worker died."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def orphaned_trials(study: optuna.Study, dead_workers: Sequence[str], include_unclaimed: bool) -> Iterator[FrozenTrial]:
    """Running trials of dead workers.

    Args:
        include_unclaimed: also trials without a worker's name after 3 s: their worker died right after it created them.
    """
    for trial in running_trials(study):
        worker, started = trial.user_attrs.get(WORKER), trial.datetime_start
        is_unclaimed = include_unclaimed and worker is None
        if worker in dead_workers or (is_unclaimed and started and datetime.now() - started > _MAX_UNCLAIMED):
            yield trial


def fail_trial(study: optuna.Study, trial: FrozenTrial, retry: bool) -> None:
    """Mark a running trial as failed and, with ``retry``, enqueue it again; leaves a trial that has finished alone."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except ValueError:  # it has finished since
        return
    if retry:
        retry_callback()(study, trial)


def find_duplicate(study: optuna.Study, number: int, settings: Sequence[str]) -> int | None:
    """Number of another trial with the same settings that is running or has an accuracy; None without one.

    A trial with a higher number counts only once its worker has written its name, so that two trials never skip each
    other.
    """
    for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)):
        if other.state.is_finished() and not other.intermediate_values:
            continue
        is_first = other.number < number or (other.number > number and WORKER in other.user_attrs)
        if is_first and other.user_attrs.get(SETTINGS) == list(settings):
            return other.number
    return None


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Measured trials, best first: those of the highest rung before all others, one for each list of settings."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and accuracy_of(trial)]
    top_rung = max((len(trial.intermediate_values) for trial in done), default=0)
    done.sort(key=lambda trial: (len(trial.intermediate_values) == top_rung, accuracy_of(trial)), reverse=True)
    by_settings: dict[tuple[str, ...], FrozenTrial] = {}
    for trial in done:
        by_settings.setdefault(tuple(trial.user_attrs.get(SETTINGS, ())), trial)
    return list(by_settings.values())


def is_measured(trial: FrozenTrial, space: Space) -> bool:
    """Whether a trial has an accuracy, and values of all fields."""
    return bool(trial.intermediate_values) and set(trial.params) == set(space.distributions)


def first_accuracy_of(trial: FrozenTrial) -> float:
    """The accuracy at the lowest rung, which every measured trial has."""
    return trial.intermediate_values[min(trial.intermediate_values)]


def accuracy_of(trial: FrozenTrial) -> float:
    """The accuracy at the highest rung of a trial; 0 without any."""
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else 0.0


def trial_record(spec: SearchSpec, trial: FrozenTrial) -> SearchTrial:
    """The line of a finished trial in trials.jsonl."""
    attributes, num_rungs = trial.user_attrs, len(trial.intermediate_values)
    values = {
        "phase": "search",
        "trial": trial.number,
        "state": _STATES[trial.state],
        "accuracy": accuracy_of(trial) or None,
        "budget_seconds": spec.rungs[num_rungs - 1] if num_rungs else None,
        "settings": attributes.get(SETTINGS, ()),
        "params": trial.params,
        "worker": attributes.get(WORKER),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
        "retry_of": trial.system_attrs.get("failed_trial"),
        "reason": attributes.get(REASON),
        "trainings": attributes.get(TRAININGS, ()),
    }
    return from_values(values, SearchTrial, f"trial {trial.number}")
