"""A worker process of a search: runs trials of the study until the search ends.

    python -m timebox.tuning.worker

is started by the worker pool, with the fields of a :class:`WorkerConfig` as JSON on its standard input.
"""

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import optuna
import torch
from optuna.exceptions import OptunaError

from timebox.clock import Deadline
from timebox.configs.tune import MIN_TRIALS_PER_BUDGET, TuneConfig
from timebox.custom import trust
from timebox.errors import BudgetError, TimeboxError, UsageError
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import sha256_of
from timebox.recipes import code_of
from timebox.run.json_values import to_values
from timebox.runtime.device import resolve_device
from timebox.tuning import study as studies
from timebox.tuning.pattern_search import sampler_for
from timebox.tuning.space import Space
from timebox.tuning.storage import open_storage
from timebox.tuning.study import REASON, REDUCTION_FACTOR, SETTINGS, STEP, TRAININGS, WORKER, SearchSpec
from timebox.tuning.trial import DivergedError, Trainer

# Time of a trial beside its trainings: writing to the storage, and a machine that is slow for a moment.
SLACK_SECONDS = 0.7
EXIT_USER_ERROR = 2
# Failed trials in a row, without any measured trial of the study, after which a worker stops.
MAX_FAILURES = 5
# Duplicate trials in a row that are skipped; where all fields are categorical, every combination may have been tried.
MAX_DUPLICATES = 3
# Options of reading the data.
READING = ("data_dir", "max_bad_share", "cache")
_POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The study, the machine and the identity of a worker; other options are as of :func:`timebox.tune`.

    Attributes:
        storage: path of a journal or URL of a database. study: name of the study in it.
        data: path or name of the data on this machine; None for the study's.
        num_threads: CPU threads; None for torch's default.
        number: number of the worker, from 0; seeds its sampler. name: written to its trials.
        parent: process id; the worker ends when this process does.
        trust_code: whether the worker may import the code that the study's recipe names.
    """

    storage: str = field(repr=False)
    study: str
    data: str | None = None
    data_dir: str | None = None
    max_bad_share: float = 0.1
    cache: bool = True
    device: str = "auto"
    num_threads: int | None = None
    number: int = 0
    name: str = ""
    parent: int | None = None
    trust_code: bool = False

    @classmethod
    def of(cls, config: TuneConfig, **others: Any) -> "WorkerConfig":
        """The config of a worker with the data and the device of a search's config."""
        return cls(**{name: getattr(config, name) for name in ("data", "device", *READING)}, **others)


def run_worker(config: WorkerConfig) -> int:
    """Run trials until the search ends; returns their number.

    Raises UsageError for a study of other data or of another version of timebox, or where every trial fails.
    """
    if config.parent is not None:
        threading.Thread(target=_exit_with_parent, args=(config.parent,), daemon=True).start()
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study, spec = studies.load(open_storage(config.storage), config.study)
    if config.trust_code:
        trust(code_of(spec.recipe, spec.settings))
    worker = Worker(study, spec, load_trainer(spec, config).cut(spec.num_images), config)
    while not spec.ends_at or spec.seconds_left > spec.rungs[0] + SLACK_SECONDS:
        if not spec.ends_at:  # the search is being set up
            time.sleep(_POLL_SECONDS)
        else:
            worker.run_trial()
        if worker.fatal_error is not None:
            raise UsageError(worker.fatal_error)
        worker.spec = spec = studies.read_spec(study)  # its end may have been moved
    return worker.num_done


def load_trainer(spec: SearchSpec, config: WorkerConfig) -> Trainer:
    """A trainer on all images of a search. Raises UsageError where they differ from those the study began with."""
    source = spec.source if config.data is None else spec.source.replace(data=config.data)
    reader = DatasetReader(config.data_dir, config.max_bad_share, lambda line: None, Deadline(None), cache=config.cache)
    _, data_splits = reader.read_splits(source, spec.image_size, spec.image_fit)
    if sha256_of(data_splits.train) != spec.data_sha256:
        raise UsageError(f"the study is of other data than {source.data!r}")
    assert data_splits.val is not None
    return Trainer(data_splits.train, data_splits.val, source, resolve_device(config.device), spec.precision, spec.seed)


class Worker:
    """Runs trials, one at a time.

    Attributes:
        spec: the latest spec of the study.
        num_done: number of trials run.
        fatal_error: why all further trials would fail; None otherwise.
    """

    def __init__(self, study: optuna.Study, spec: SearchSpec, trainer: Trainer, config: WorkerConfig) -> None:
        self._study, self.spec, self._trainer, self._name = study, spec, trainer, config.name
        self._space = Space.from_json(spec.space)
        study.sampler = sampler_for(spec, config.number)
        self.num_done = self._num_failures = self._num_duplicates = 0
        self.fatal_error: str | None = None

    def run_trial(self) -> None:
        """Run the next trial, enqueued ones first."""
        try:
            self._study.optimize(self._objective, n_trials=1)
            self.num_done += 1
        except (OptunaError, ValueError):  # the database did not answer, or another worker failed this one's trial
            time.sleep(_POLL_SECONDS)

    def _objective(self, trial: optuna.Trial) -> float:
        params = self._space.suggest(trial)
        if SETTINGS not in trial.user_attrs:
            trials = self._study.get_trials(deepcopy=False)
            parent, fields = trials[trial.number].user_attrs.get(STEP, (None, None))  # written by the sampler
            inherited = () if parent is None else trials[parent].user_attrs.get(SETTINGS, ())
            trial.set_user_attr(SETTINGS, list(self._space.settings(params, fields, inherited)))
        duplicate = studies.find_duplicate(self._study, trial.number, trial.user_attrs[SETTINGS])
        trial.set_user_attr(WORKER, self._name)
        # Two workers that see the same trials may take the same step, and two samples may coincide at a bound. After
        # MAX_DUPLICATES in a row the next duplicate is trained anyway.
        is_skipped = duplicate is not None and self._num_duplicates < MAX_DUPLICATES
        self._num_duplicates = self._num_duplicates + 1 if is_skipped else 0
        try:
            if is_skipped:
                raise optuna.TrialPruned(f"the same as trial {duplicate}")
            accuracy = self._train_rungs(trial)
        except optuna.TrialPruned as reason:
            trial.set_user_attr(REASON, str(reason))
            raise
        except (TimeboxError, RuntimeError, MemoryError) as error:
            trial.set_user_attr(REASON, str(error))
            self._num_failures += 1
            is_first = trial.number == 0 and isinstance(error, TimeboxError)
            any_measured = any(one.intermediate_values for one in self._study.get_trials(deepcopy=False))
            if is_first or (self._num_failures >= MAX_FAILURES and not any_measured):
                self.fatal_error = _refusal(error)
            raise optuna.TrialPruned(str(error)) from error
        self._num_failures = 0
        return accuracy

    def _train_rungs(self, trial: optuna.Trial) -> float:
        """Train from scratch at each rung until the pruner stops the trial; returns the accuracy at the last one."""
        spec = self.spec
        accuracies = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        accuracy = 0.0
        for rung, budget in enumerate(spec.rungs):
            step = REDUCTION_FACTOR**rung
            if step in accuracies:  # measured by a worker that died
                accuracy = accuracies[step]
                continue
            if spec.seconds_left < budget + SLACK_SECONDS:
                raise optuna.TrialPruned(f"no time left for a training of {budget:.0f} s")
            try:
                result = self._trainer.train(spec.recipe, [*spec.settings, *trial.user_attrs[SETTINGS]], 0, budget)
            except DivergedError as error:
                raise optuna.TrialPruned(f"diverged: {error}") from error
            trial.set_user_attr(TRAININGS, [*trial.user_attrs.get(TRAININGS, []), to_values(result)])
            accuracy = result.accuracy
            trial.report(accuracy, step)
            if rung + 1 < len(spec.rungs) and trial.should_prune():
                raise optuna.TrialPruned(f"not among the best {1 / REDUCTION_FACTOR:.0%} under {budget:.0f} s")
        return accuracy


def _refusal(error: Exception) -> str:
    """The reason why no trial can work; for a trial's budget with the budget of a search that has room for it."""
    if not isinstance(error, BudgetError) or error.smallest_seconds is None:
        return str(error)
    return f"trial_{error}, and a budget of at least {MIN_TRIALS_PER_BUDGET * error.smallest_seconds}s"


def _exit_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    try:
        run_worker(WorkerConfig(**json.load(sys.stdin)))
    except TimeboxError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(EXIT_USER_ERROR)
    os._exit(0)  # without waiting a second for torch's own exit handlers
