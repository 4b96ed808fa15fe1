"""A worker with a trainer that only counts."""

import time
from collections.abc import Sequence

import optuna

from timebox.tuning.space import Space
from timebox.tuning.study import REASON, TRAININGS
from timebox.tuning.trial import TrialResult
from timebox.tuning.worker import MAX_DUPLICATES, Worker, WorkerConfig

from .test_study import new_study, search

FLIPS = Space({"flip": optuna.distributions.CategoricalDistribution(["none", "random"])})


class CountingTrainer:
    """Stands in for :class:`timebox.tuning.trial.Trainer`."""

    def __init__(self) -> None:
        self.trained: list[str] = []

    def train(self, recipe: str, settings: Sequence[str], repeat: int, budget_seconds: float) -> TrialResult:
        self.trained.append(settings[-1])
        return TrialResult(0.5, 10, {}, 10, 1, 1.0, 1.0, budget_seconds)


def worker_of(study: optuna.Study, trainer: CountingTrainer) -> Worker:
    about = search(space=FLIPS.to_json(), rungs=(5.0,), ends_at=time.time() + 1000)
    return Worker(study, about, trainer, WorkerConfig(storage="", study="s", name="w"))  # type: ignore[arg-type]


def test_duplicates_are_skipped_up_to_a_limit() -> None:
    study, trainer = new_study(space=FLIPS.to_json()), CountingTrainer()
    worker = worker_of(study, trainer)
    while len(trainer.trained) < 2:
        worker.run_trial()
    assert sorted(trainer.trained) == ["flip=none", "flip=random"]
    before = len(study.trials)
    for _ in range(MAX_DUPLICATES + 1):
        worker.run_trial()
    *let_go, again = study.trials[before:]
    assert all("the same as trial" in trial.user_attrs[REASON] for trial in let_go)
    assert not any(TRAININGS in trial.user_attrs for trial in let_go)
    assert len(again.user_attrs[TRAININGS]) == 1
    assert len(trainer.trained) == 3
