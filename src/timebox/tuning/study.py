"""A search as its storage holds it: what is searched, and the trials there have been."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from timebox.errors import RunError, UsageError
from timebox.file_versions import FORMAT_KEY, TUNE_STUDY_FORMAT
from timebox.recipe import Value
from timebox.tuning.space import Space
from timebox.tuning.storage import queued_again
from timebox.version import VERSION

SAMPLERS = ("tpe", "random")
# Of the trials that end a shorter schedule, one in so many goes on to the next, which is so many times as long.
REDUCTION = 3
# What of a trial is kept beside its values. MOVED: the trial that it moved away from, and the fields that it moved.
SETTINGS, WORKER, MEASURED, REASON, MOVED = "settings", "worker", "measured", "reason", "moved"
_ABOUT = "timebox"
# A worker marks a trial once its values are known, which takes milliseconds.
_UNMARKED_SECONDS = 3.0


@dataclass(frozen=True)
class Search:
    """What every worker of a search must know.

    Attributes:
        source: the data as `timebox train` takes them. data_sha256: of the images trained on.
        recipe, settings: what is started from.
        rungs: budgets in seconds of the trainings of a trial, each after the first for one in REDUCTION.
        val_is_apart: whether the images judged by are none that the final run may train on.
        num_images: images trained on.
        ends_at: when the search ends, in seconds since 1970.
    """

    source: Mapping[str, object]
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
        """Until the search ends."""
        return self.ends_at - time.time()

    def sampler_for(self, worker: int) -> BaseSampler:
        """What suggests the values of a worker's trials."""
        seed = (self.seed * 1000 + worker) % 2**32
        if self.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=1)


def create(storage: BaseStorage, name: str, search: Search) -> optuna.Study:
    """A new study. Raises UsageError where there is one of that name."""
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction="maximize")
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UsageError(
            f"study {name!r} is in the storage already: give --join to work for it, or another --study"
        ) from error
    study.set_user_attr(_ABOUT, TUNE_STUDY_FORMAT.numbered(asdict(search)))
    return study


def load(storage: BaseStorage, name: str, worker: int = 0) -> tuple[optuna.Study, Search]:
    """A study that was begun.

    Raises UsageError where there is none, or where it is another version's.
    """
    study = _study(storage, name)
    search = search_of(study)
    study.sampler = search.sampler_for(worker)
    study.pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    return study, search


def search_of(study: optuna.Study) -> Search:
    """What a study searches, as it stands. Raises UsageError where it is another version's."""
    search = _recorded(study)
    if search.version != VERSION:
        raise UsageError(
            f"study {study.study_name!r} cannot be used: it is of timebox {search.version}, this is {VERSION}"
        )
    return search


def take_over(storage: BaseStorage, name: str) -> str:
    """Let this version go on with a study; the version that began it. Raises UsageError, RunError as :func:`load`."""
    study = _study(storage, name)
    search = _recorded(study)
    if search.version != VERSION:
        study.set_user_attr(_ABOUT, TUNE_STUDY_FORMAT.numbered(asdict(replace(search, version=VERSION))))
    return search.version


def _study(storage: BaseStorage, name: str) -> optuna.Study:
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise UsageError(f"study {name!r} is not in the storage") from error


def _recorded(study: optuna.Study) -> Search:
    """What a study searches, whichever version began it."""
    about, where = study.user_attrs.get(_ABOUT), f"study {study.study_name!r}"
    if not isinstance(about, dict) or "version" not in about:
        raise UsageError(f"{where} cannot be used: it is no study of timebox")
    values = TUNE_STUDY_FORMAT.upgraded(about, where)
    del values[FORMAT_KEY]
    try:
        return Search(**{**values, **{name: tuple(values[name]) for name in ("settings", "rungs")}})  # type: ignore
    except (KeyError, TypeError) as error:
        raise RunError(f"{where} is damaged: {error}") from error


def put_off(study: optuna.Study, search: Search, ends_at: float) -> Search:
    """Let a search end at another time."""
    search = replace(search, ends_at=ends_at)
    study.set_user_attr(_ABOUT, TUNE_STUDY_FORMAT.numbered(asdict(search)))
    return search


def enqueue(study: optuna.Study, params: Mapping[str, Value], settings: Sequence[str], moved: Sequence[str]) -> None:
    """Let a trial be made of these settings, which stand where ``params`` do, before any other. It moves these fields
    away from the first trial."""
    attributes: dict[str, object] = {SETTINGS: list(settings)}
    if moved:
        attributes[MOVED] = [0, list(moved)]
    study.enqueue_trial(dict(params), user_attrs=attributes)


def running(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that somebody is at work on, or was."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def give_up(study: optuna.Study, trial: FrozenTrial, again: bool) -> None:
    """Mark a trial whose worker is gone as failed; with ``again`` it waits for another worker."""
    try:
        study.tell(trial.number, state=TrialState.FAIL)
    except ValueError:  # it was brought to its end after all
        return
    if again:
        queued_again()(study, trial)


def abandoned(study: optuna.Study, workers: Sequence[str], nobodys: bool) -> Iterator[FrozenTrial]:
    """Trials that were begun by these workers; with ``nobodys`` also by one that died before it said which it is."""
    for trial in running(study):
        worker = trial.user_attrs.get(WORKER)
        began = trial.datetime_start
        unmarked = nobodys and worker is None and began and (datetime.now() - began).total_seconds() > _UNMARKED_SECONDS
        if worker in workers or unmarked:
            yield trial


def twin_of(study: optuna.Study, number: int, settings: Sequence[str]) -> int | None:
    """The trial that came before this one with the same settings, or is at work on them already; None where none is.
    One that came to nothing does not count."""
    for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)):
        if other.state.is_finished() and not other.intermediate_values:
            continue
        is_ahead = other.number < number or (other.number > number and WORKER in other.user_attrs)
        if is_ahead and other.user_attrs.get(SETTINGS) == list(settings):
            return other.number
    return None


def budget_of(search: Search, trial: FrozenTrial) -> float | None:
    """The longest budget a trial was trained under in full, seconds."""
    return search.rungs[len(trial.intermediate_values) - 1] if trial.intermediate_values else None


def leaders(study: optuna.Study) -> list[FrozenTrial]:
    """The best of the trials that were trained under the longest budget of any, the best first, none twice."""
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished() and accuracy_of(trial)]
    most = max((len(trial.intermediate_values) for trial in done), default=0)
    ranked = sorted(done, key=lambda trial: (len(trial.intermediate_values) == most, accuracy_of(trial)), reverse=True)
    by_settings: dict[tuple[str, ...], FrozenTrial] = {}
    for trial in ranked:
        by_settings.setdefault(tuple(trial.user_attrs.get(SETTINGS, ())), trial)
    return list(by_settings.values())


def is_measured(trial: FrozenTrial, space: Space) -> bool:
    """Whether a trial came to something, at a known place."""
    return bool(trial.intermediate_values) and set(trial.params) == set(space.distributions)


def first_accuracy_of(trial: FrozenTrial) -> float:
    """The accuracy under the shortest budget, which all have had."""
    return trial.intermediate_values[min(trial.intermediate_values)]


def accuracy_of(trial: FrozenTrial) -> float:
    """The accuracy under the longest budget; 0 without any."""
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else 0.0


def as_line(search: Search, trial: FrozenTrial) -> dict[str, object]:
    """What there is to say of a finished trial, ready for JSON."""
    state = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}[trial.state]
    took = trial.duration.total_seconds() if trial.duration else None
    return {
        "phase": "search",
        "trial": trial.number,
        "state": state,
        "accuracy": accuracy_of(trial) or None,
        "budget_seconds": budget_of(search, trial),
        "settings": trial.user_attrs.get(SETTINGS, []),
        "params": dict(trial.params),
        "worker": trial.user_attrs.get(WORKER),
        "seconds": took,
        "retry_of": trial.system_attrs.get("failed_trial"),
        "reason": trial.user_attrs.get(REASON),
        "trainings": trial.user_attrs.get(MEASURED, []),
    }
