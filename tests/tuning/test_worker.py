"""A worker's trials, by a trainer that only counts."""

import time
from collections.abc import Sequence

import optuna

from timebox.tuning.space import Dimension, Space
from timebox.tuning.study import MEASURED, REASON
from timebox.tuning.trial import Measured
from timebox.tuning.worker import MOST_TWINS, Worker

from .test_study import made, search

FLIPS = Space((Dimension("flip", optuna.distributions.CategoricalDistribution(["none", "random"]), False),))


class Counting:
    """Stands in for :class:`timebox.tuning.trial.Trainer`."""

    def __init__(self) -> None:
        self.trained: list[str] = []

    def measure(self, recipe: str, settings: Sequence[str], repeat: int, budget_seconds: float) -> Measured:
        self.trained.append(settings[-1])
        return Measured(0.5, 10, {}, 10, 1, 1.0, 1.0, budget_seconds)


def worker_of(study: optuna.Study, trainer: Counting) -> Worker:
    about = search(space=FLIPS.to_json(), rungs=(5.0,), ends_at=time.time() + 1000)
    return Worker(study, about, trainer, "w", 0)  # type: ignore[arg-type]


def test_what_has_been_done_is_let_go_but_not_for_ever() -> None:
    study, trainer = made(space=FLIPS.to_json()), Counting()
    worker = worker_of(study, trainer)
    while len(trainer.trained) < 2:
        worker.next_trial()
    assert sorted(trainer.trained) == ["flip=none", "flip=random"]
    before = len(study.trials)
    for _ in range(MOST_TWINS + 1):
        worker.next_trial()
    *let_go, again = study.trials[before:]
    assert all("the same as trial" in trial.user_attrs[REASON] for trial in let_go)
    assert not any(MEASURED in trial.user_attrs for trial in let_go)
    assert len(again.user_attrs[MEASURED]) == 1
    assert len(trainer.trained) == 3
