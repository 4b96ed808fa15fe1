"""Where to look next: near the best trial so far, in few fields at a time.

A search has a few dozen trials for more than a dozen fields, and begins at what is good already. So it goes from the
best trial there is, as a pattern search does (Hooke and Jeeves 1961): what each field does is probed alone, the probes
that gained are combined, a move that gained is made again, and else a few fields are drawn anew, by Optuna's TPE, those
that mattered more often than others.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.trial import FrozenTrial

from timebox.recipe import Value
from timebox.tuning.space import Space

# What a trial is: the trial that it moved away from, and the fields that it moved.
MOVED = "moved"
_COMBINED = "combined"
# Share of the images: less is chance.
GAIN = 0.01
# Fields that are drawn anew at a time, at most.
MOST_MOVED = 3
# Every field counts as having mattered so much.
FLOOR = 0.01


@dataclass(frozen=True)
class Move:
    """A step away from a trial.

    Attributes:
        values: of the fields that are settled; the others are drawn.
        moved: the fields that differ.
    """

    parent: int
    values: Mapping[str, Value]
    moved: tuple[str, ...]

    @property
    def record(self) -> list[object]:
        """As a trial keeps it."""
        return [self.parent, list(self.moved)]

    def sampler(self, base: BaseSampler) -> BaseSampler:
        """Draws what is not settled."""
        with warnings.catch_warnings(action="ignore"):  # it has been experimental for years
            return PartialFixedSampler(dict(self.values), base)


def next_move(study: optuna.Study, space: Space, rng: np.random.Generator) -> Move | None:
    """The next step of a search; None before there is anything to move away from."""
    trials = {
        trial.number: trial
        for trial in study.get_trials(deepcopy=False)
        if trial.intermediate_values and set(trial.params) == set(space.distributions)
    }
    if not trials:
        return None
    if _COMBINED not in study.user_attrs and (move := combined(trials)):
        study.set_user_attr(_COMBINED, True)
        return move
    best = max(trials.values(), key=lambda trial: (len(trial.intermediate_values), _latest(trial)))
    if not any(_parent(trial) == best.number for trial in trials.values()) and (move := again(trials, best, space)):
        return move
    names = list(space.distributions)
    mattered = effects(trials)
    weights = np.array([FLOOR + mattered.get(name, 0.0) for name in names])
    count = min(int(rng.integers(1, MOST_MOVED + 1)), len(names))
    drawn = {str(name) for name in rng.choice(names, count, replace=False, p=weights / weights.sum())}
    values = {name: value for name, value in best.params.items() if name not in drawn}
    return Move(best.number, values, tuple(name for name in names if name in drawn))


def combined(trials: Mapping[int, FrozenTrial]) -> Move | None:
    """All probes of single fields that gained, at once; None where there are not two of them."""
    start = trials.get(0)
    if start is None:
        return None
    gains: dict[str, tuple[float, Value]] = {}
    for trial in trials.values():
        parent, moved = trial.user_attrs.get(MOVED, (None, ()))
        if parent == 0 and len(moved) == 1:
            gain = _first(trial) - _first(start)
            gains[moved[0]] = max(gains.get(moved[0], (GAIN, start.params[moved[0]])), (gain, trial.params[moved[0]]))
    changes = {name: value for name, (gain, value) in gains.items() if gain > GAIN}
    return Move(0, {**start.params, **changes}, tuple(changes)) if len(changes) > 1 else None


def again(trials: Mapping[int, FrozenTrial], best: FrozenTrial, space: Space) -> Move | None:
    """The move that led to the best trial once more, for fields that are multiples; None where that leads nowhere."""
    parent, moved = best.user_attrs.get(MOVED, (None, ()))
    if parent not in trials:
        return None
    values = dict(best.params)
    for name in moved:
        match space.distributions[name]:
            case FloatDistribution(low=low, high=high, log=True):
                values[name] = min(high, max(low, best.params[name] ** 2 / trials[parent].params[name]))
    further = tuple(name for name in moved if values[name] != best.params[name])
    return Move(best.number, values, further) if further else None


def effects(trials: Mapping[int, FrozenTrial]) -> dict[str, float]:
    """The most that a move of each field has changed, shared among the fields moved together."""
    most: dict[str, float] = {}
    for trial in trials.values():
        parent, moved = trial.user_attrs.get(MOVED, (None, ()))
        if parent in trials:
            change = abs(_first(trial) - _first(trials[parent])) / max(1, len(moved))
            most |= {name: max(most.get(name, 0.0), change) for name in moved}
    return most


def _parent(trial: FrozenTrial) -> int | None:
    moved: Sequence[int] = trial.user_attrs.get(MOVED, (None,))
    return moved[0]


def _first(trial: FrozenTrial) -> float:
    """Accuracy under the shortest budget, which all have had."""
    return trial.intermediate_values[min(trial.intermediate_values)]


def _latest(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]
