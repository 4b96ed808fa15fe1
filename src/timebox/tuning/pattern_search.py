"""Where to look next: near the best trial so far, in few fields at a time.

A search has a few dozen trials for more than a dozen fields, and begins at what is good already. So it goes from the
best trial there is, as a pattern search does (Hooke and Jeeves 1961): what each field does is probed alone, the probes
that gained are combined, a move that gained is made again, and else a few fields are drawn anew, by Optuna's TPE, those
that mattered more often than others.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, PartialFixedSampler
from optuna.trial import FrozenTrial

from timebox.recipe import Value
from timebox.tuning.space import Space
from timebox.tuning.study import MOVED, accuracy_of, first_accuracy_of, is_measured

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
        moved: the other fields, and those that are settled anew.
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
    known = study.get_trials(deepcopy=False)
    # A trial whose worker died goes by the number it had at first.
    trials = {
        int(trial.system_attrs.get("failed_trial", trial.number)): trial for trial in known if is_measured(trial, space)
    }
    if not trials:
        return None
    made = [trial.user_attrs.get(MOVED) for trial in known]  # whatever came of it
    if (move := combined(trials)) and move.record not in made:
        return move
    place, best = max(trials.items(), key=lambda item: (len(item[1].intermediate_values), accuracy_of(item[1])))
    if (move := again(trials, place, space)) and move.record not in made:
        return move
    drawn = _drawn(space, effects(trials), rng)
    values = {name: value for name, value in best.params.items() if name not in drawn}
    return Move(place, values, tuple(name for name in space.distributions if name in drawn))


def _drawn(space: Space, mattered: Mapping[str, float], rng: np.random.Generator) -> set[str]:
    """A few fields, those that mattered more often than others. One is a number: of choices alone there are so few that
    the same training would come up again."""
    names = list(space.distributions)
    numbers = [name for name in names if not isinstance(space.distributions[name], CategoricalDistribution)]
    count = min(int(rng.integers(1, MOST_MOVED + 1)), len(names))
    drawn: set[str] = set()
    while len(drawn) < count:
        left = [name for name in (names if drawn else numbers or names) if name not in drawn]
        weights = np.array([FLOOR + mattered.get(name, 0.0) for name in left])
        drawn.add(str(rng.choice(left, p=weights / weights.sum())))
    return drawn


def combined(trials: Mapping[int, FrozenTrial]) -> Move | None:
    """All probes of single fields that gained, at once; None where there are not two of them."""
    start = trials.get(0)
    if start is None:
        return None
    gains: dict[str, tuple[float, Value]] = {}
    for trial in trials.values():
        parent, moved = trial.user_attrs.get(MOVED, (None, ()))
        if parent == 0 and len(moved) == 1:
            gain = first_accuracy_of(trial) - first_accuracy_of(start)
            gains[moved[0]] = max(gains.get(moved[0], (GAIN, start.params[moved[0]])), (gain, trial.params[moved[0]]))
    changes = {name: value for name, (gain, value) in gains.items() if gain > GAIN}
    return Move(0, {**start.params, **changes}, tuple(changes)) if len(changes) > 1 else None


def again(trials: Mapping[int, FrozenTrial], place: int, space: Space) -> Move | None:
    """The move that led to the best trial once more, for fields that are multiples; None where that leads nowhere."""
    best = trials[place]
    parent, moved = best.user_attrs.get(MOVED, (None, ()))
    if parent not in trials:
        return None
    values = dict(best.params)
    for name in moved:
        match space.distributions[name]:
            case FloatDistribution(low=low, high=high, log=True):
                values[name] = min(high, max(low, best.params[name] ** 2 / trials[parent].params[name]))
    further = tuple(name for name in moved if values[name] != best.params[name])
    return Move(place, values, further) if further else None


def effects(trials: Mapping[int, FrozenTrial]) -> dict[str, float]:
    """The most that a move of each field has changed, shared among the fields moved together."""
    most: dict[str, float] = {}
    for trial in trials.values():
        parent, moved = trial.user_attrs.get(MOVED, (None, ()))
        if parent in trials:
            change = abs(first_accuracy_of(trial) - first_accuracy_of(trials[parent])) / max(1, len(moved))
            most |= {name: max(most.get(name, 0.0), change) for name in moved}
    return most
