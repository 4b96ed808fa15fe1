"""A worker of a search: takes trials from the storage until the search ends.

    python -m timebox.tuning.worker

is how `timebox tune` starts one, with the arguments of :func:`work` as JSON on its standard input.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.exceptions import OptunaError
from optuna.trial import TrialState

from timebox.clock import Deadline
from timebox.configs.data import DataConfig
from timebox.errors import TimeboxError, UsageError
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import sha256_of
from timebox.recipe import Value
from timebox.runtime.device import resolve_device
from timebox.tuning import study as studies
from timebox.tuning.pattern_search import Move, next_move
from timebox.tuning.space import Space
from timebox.tuning.storage import open_storage
from timebox.tuning.study import MEASURED, MOVED, REASON, REDUCTION, SETTINGS, WORKER, Search
from timebox.tuning.trial import DivergedError, Trainer

# What a trial takes besides its trainings: putting it on record, and a machine that stutters.
SLACK_SECONDS = 0.7
REFUSED = 2
# So many trials that fail one after the other say that something is wrong with all of them.
MOST_FAILURES = 5
# So many trials in a row are let go because there has been one like it; where only choices are searched, all have been.
MOST_TWINS = 3
_PARENT_CHECKED_SECONDS = 0.5


def work(
    storage: str,
    study: str,
    number: int,
    name: str,
    data: str | None = None,
    data_dir: str | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    device: str = "auto",
    threads: int | None = None,
    parent: int | None = None,
) -> int:
    """Carry out trials until the search ends; how many.

    Args:
        storage: path of a journal or URL of a database. study: its name there.
        number: which worker this is, from 0; decides what is suggested. name: what it marks its trials with.
        data: where the data are on this machine; None where the study says.
        threads: CPU threads; None for torch's own choice.
        parent: process without which this one ends.
    Raises:
        UsageError: for a study of other data, or another version; where every trial fails.
    """
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if threads is not None:
        torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found, search = studies.load(open_storage(storage), study, number)
    trainer = trainer_for(search, data, data_dir, max_bad_share, cache, device).cut(search.num_images)
    worker = Worker(found, search, trainer, name, number)
    while not search.ends_at or search.seconds_left > search.rungs[0] + SLACK_SECONDS:
        if not search.ends_at:  # it is being prepared
            time.sleep(_PARENT_CHECKED_SECONDS)
        else:
            worker.next_trial()
        if worker.hopeless is not None:
            raise UsageError(worker.hopeless)
        worker.search = search = studies.search_of(found)  # its end may have been put off
    return worker.num_done


def trainer_for(
    search: Search, data: str | None, data_dir: str | None, max_bad_share: float, cache: bool, device: str
) -> Trainer:
    """Trains on a search's data, all of them. Raises UsageError where they are others."""
    source = DataConfig(**{**search.source, **({} if data is None else {"data": data})})  # type: ignore[arg-type]
    reader = DatasetReader(
        Path(data_dir) if data_dir else None, max_bad_share, lambda line: None, Deadline(None), None, cache
    )
    _, data_splits = reader.divided(source, search.image_size, search.image_fit)
    if sha256_of(data_splits.train) != search.data_sha256:
        raise UsageError(f"the study is of other data than {source.data!r}")
    assert data_splits.val is not None
    return Trainer(data_splits.train, data_splits.val, source, resolve_device(device), search.precision, search.seed)


class Worker:
    """Carries out one trial after the other.

    Attributes:
        search: as it stands. num_done: trials carried out.
        hopeless: why all further ones would fail; None where they need not.
    """

    def __init__(self, study: optuna.Study, search: Search, trainer: Trainer, name: str, number: int) -> None:
        self._study, self.search, self._trainer, self._name = study, search, trainer, name
        self.num_done = 0
        self._space = Space.from_json(search.space)
        self._base, self._rng = study.sampler, np.random.default_rng([search.seed, number])
        self._move: Move | None = None
        self._num_failures = self._num_twins = 0
        self.hopeless: str | None = None

    def next_trial(self) -> None:
        """Carry out a trial, or what a dead worker left of one."""
        self._move = self._next_move()
        self._study.sampler = self._move.sampler(self._base) if self._move else self._base
        try:
            self._study.optimize(self._accuracy, n_trials=1)
            self.num_done += 1
        except (OptunaError, ValueError):  # the database was away for a while, or took this worker for dead
            time.sleep(_PARENT_CHECKED_SECONDS)

    def _next_move(self) -> Move | None:
        """Where to look, unless something is waiting to be looked at."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if self.search.sampler == "random" or waiting:
            return None
        return next_move(self._study, self._space, self._rng)

    def _accuracy(self, trial: optuna.Trial) -> float:
        params = {dimension.name: dimension.suggested(trial) for dimension in self._space.dimensions}
        if SETTINGS not in trial.user_attrs:
            trial.set_user_attr(SETTINGS, list(self._settings(params)))
            if self._move:
                trial.set_user_attr(MOVED, self._move.record)
        twin = studies.twin_of(self._study, trial.number, trial.user_attrs[SETTINGS])
        trial.set_user_attr(WORKER, self._name)
        try:
            self._let_go_if(twin)
            accuracy = self._halving(trial)
        except optuna.TrialPruned as stopped:
            trial.set_user_attr(REASON, str(stopped))
            raise
        except (TimeboxError, RuntimeError, MemoryError) as error:
            trial.set_user_attr(REASON, str(error))
            self._num_failures += 1
            is_first = trial.number == 0 and isinstance(error, TimeboxError)
            anything_done = any(one.intermediate_values for one in self._study.get_trials(deepcopy=False))
            if is_first or (self._num_failures >= MOST_FAILURES and not anything_done):
                self.hopeless = str(error)
            raise optuna.TrialPruned(str(error)) from error
        self._num_failures = 0
        return accuracy

    def _let_go_if(self, twin: int | None) -> None:
        """Two workers that look at the same trials may make the same move, and draws meet at a bound."""
        self._num_twins = 0 if twin is None or self._num_twins == MOST_TWINS else self._num_twins + 1
        if self._num_twins:
            raise optuna.TrialPruned(f"the same as trial {twin}")

    def _settings(self, params: Mapping[str, Value]) -> tuple[str, ...]:
        if self._move is None:
            return self._space.settings(params)
        known = self._study.get_trials(deepcopy=False)
        return self._space.settings(params, self._move.moved, known[self._move.parent].user_attrs.get(SETTINGS, ()))

    def _halving(self, trial: optuna.Trial) -> float:
        """Whole trainings under ever longer budgets, as long as a trial is among the better ones."""
        search = self.search
        known = self._study.get_trials(deepcopy=False)[trial.number].intermediate_values
        accuracy = 0.0
        for scale, budget in enumerate(search.rungs):
            step = REDUCTION**scale
            if step in known:  # by a worker that died
                accuracy = known[step]
                continue
            if search.seconds_left < budget + SLACK_SECONDS:
                raise optuna.TrialPruned(f"there was no time for {budget:.0f} s more")
            settings = [*search.settings, *trial.user_attrs[SETTINGS]]
            try:
                measured = self._trainer.measure(search.recipe, settings, 0, budget)
            except DivergedError as error:
                raise optuna.TrialPruned(f"diverged: {error}") from error
            trial.set_user_attr(MEASURED, [*trial.user_attrs.get(MEASURED, []), asdict(measured)])
            accuracy = measured.accuracy
            trial.report(accuracy, step)
            if scale + 1 < len(search.rungs) and trial.should_prune():
                raise optuna.TrialPruned(f"not among the best {1 / REDUCTION:.0%} under {budget:.0f} s")
        return accuracy


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECKED_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    try:
        work(**json.load(sys.stdin))
    except TimeboxError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(REFUSED)
    os._exit(0)  # Python takes a second to tear torch down
