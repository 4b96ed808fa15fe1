"""Optuna sampler for a pattern search around the incumbent (Hooke and Jeeves 1961), with TPE inside each step.

A search has a few dozen trials for more than a dozen fields and starts from a good recipe, so TPE over the whole space
has too few trials to learn from. Each trial instead changes one to three fields of the incumbent, the best trial so
far: first all improving single-field trials are combined, then a step that led to the incumbent is repeated, else a few
fields are drawn anew by TPE, those with a larger measured effect more often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from timebox.recipes import Value
from timebox.tuning.space import Space
from timebox.tuning.study import STEP, SearchSpec, accuracy_of, first_accuracy_of, is_measured

# Accuracy difference below which an improvement is taken for noise.
MIN_GAIN = 0.01
MAX_FIELDS_PER_STEP = 3
# Added to the effect of every field, so that a field without any effect so far is drawn too.
MIN_EFFECT = 0.01


@dataclass(frozen=True)
class Step:
    """A step from the trial ``parent`` to a new one.

    Attributes:
        values: values of the fields that the sampler does not draw.
        changed_fields: fields whose values are drawn, or differ from the parent's.
    """

    parent: int
    values: Mapping[str, Value]
    changed_fields: tuple[str, ...]

    @property
    def record(self) -> list[object]:
        """The user attribute of the new trial."""
        return [self.parent, list(self.changed_fields)]


class PatternSearchSampler(BaseSampler):
    """Samples each new trial as a :class:`Step`; enqueued trials keep their values.

    Args:
        base: draws the fields that a step changes, and every field before any trial is measured.
        rng: selects the fields that a step changes.
    """

    def __init__(self, space: Space, base: BaseSampler, rng: np.random.Generator) -> None:
        self._space, self._base, self._rng = space, base, rng

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All fields. Optuna asks only for trials that are not enqueued."""
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the fields that Optuna samples together; the next step is recorded with the trial."""
        step = next_step(study, self._space, self._rng)
        if step is not None:
            study._storage.set_trial_user_attr(trial._trial_id, STEP, step.record)  # as Optuna's samplers do
        values = {} if step is None else dict(step.values)
        space = self._base.infer_relative_search_space(study, trial)
        space = {name: distribution for name, distribution in space.items() if name not in values}
        return values | self._base.sample_relative(study, trial, space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Value of a field that ``sample_relative`` did not return."""
        return self._base.sample_independent(study, trial, param_name, param_distribution)


def sampler_for(spec: SearchSpec, worker: int) -> BaseSampler:
    """The sampler of a worker: the seed depends on its number, so that workers draw different values."""
    seed = (spec.seed * 1000 + worker) % 2**32
    if spec.sampler == "random":
        return RandomSampler(seed=seed)
    base = TPESampler(seed=seed, n_startup_trials=1)
    return PatternSearchSampler(Space.from_json(spec.space), base, np.random.default_rng([spec.seed, worker]))


def next_step(study: Study, space: Space, rng: np.random.Generator) -> Step | None:
    """The next step of a search; None before any trial is measured."""
    all_trials = study.get_trials(deepcopy=False)
    # Steps name a retried trial by the number of its first attempt.
    trials = {
        int(trial.system_attrs.get("failed_trial", trial.number)): trial
        for trial in all_trials
        if is_measured(trial, space)
    }
    if not trials:
        return None
    earlier_steps = [trial.user_attrs.get(STEP) for trial in all_trials]  # in any state
    if (step := combine_improving_fields(trials)) and step.record not in earlier_steps:
        return step
    number, incumbent = max(trials.items(), key=lambda item: (len(item[1].intermediate_values), accuracy_of(item[1])))
    if (step := repeat_last_step(trials, number, space)) and step.record not in earlier_steps:
        return step
    selected = _select_fields(space, field_effects(trials), rng)
    values = {name: value for name, value in incumbent.params.items() if name not in selected}
    return Step(number, values, tuple(name for name in space.distributions if name in selected))


def _select_fields(space: Space, effects: Mapping[str, float], rng: np.random.Generator) -> set[str]:
    """One to three fields, drawn in proportion to their effects. The first is numeric where there is one: categorical
    fields alone have so few combinations that trials would repeat."""
    names = list(space.distributions)
    numeric = [name for name in names if not isinstance(space.distributions[name], CategoricalDistribution)]
    count = min(int(rng.integers(1, MAX_FIELDS_PER_STEP + 1)), len(names))
    selected: set[str] = set()
    while len(selected) < count:
        left = [name for name in (names if selected else numeric or names) if name not in selected]
        weights = np.array([MIN_EFFECT + effects.get(name, 0.0) for name in left])
        selected.add(str(rng.choice(left, p=weights / weights.sum())))
    return selected


def _step_to(trial: FrozenTrial) -> tuple[Any, Sequence[str]]:
    """Number of a trial's parent, and the fields that were changed; None and no fields for a trial without a step."""
    parent, fields = trial.user_attrs.get(STEP, (None, ()))
    return parent, fields


def combine_improving_fields(trials: Mapping[int, FrozenTrial]) -> Step | None:
    """The best value of every field that improved on trial 0 when changed alone, all at once; None for fewer than two
    such fields."""
    start = trials.get(0)
    if start is None:
        return None
    best: dict[str, tuple[float, Value]] = {}
    for trial in trials.values():
        parent, fields = _step_to(trial)
        if parent == 0 and len(fields) == 1:
            (name,) = fields
            gain = first_accuracy_of(trial) - first_accuracy_of(start)
            best[name] = max(best.get(name, (MIN_GAIN, start.params[name])), (gain, trial.params[name]))
    values = {name: value for name, (gain, value) in best.items() if gain > MIN_GAIN}
    return Step(0, {**start.params, **values}, tuple(values)) if len(values) > 1 else None


def repeat_last_step(trials: Mapping[int, FrozenTrial], number: int, space: Space) -> Step | None:
    """The step that led to trial ``number``, once more from there: multiples change by the same factor, within their
    bounds. None where no value would change."""
    incumbent = trials[number]
    parent, fields = _step_to(incumbent)
    if parent not in trials:
        return None
    values = dict(incumbent.params)
    for name in fields:
        match space.distributions[name]:
            case FloatDistribution(low=low, high=high, log=True):
                values[name] = min(high, max(low, incumbent.params[name] ** 2 / trials[parent].params[name]))
    changed = tuple(name for name in fields if values[name] != incumbent.params[name])
    return Step(number, values, changed) if changed else None


def field_effects(trials: Mapping[int, FrozenTrial]) -> dict[str, float]:
    """The largest accuracy difference that a step of each field made, divided by the number of fields in the step."""
    effects: dict[str, float] = {}
    for trial in trials.values():
        parent, fields = _step_to(trial)
        if parent in trials:
            change = abs(first_accuracy_of(trial) - first_accuracy_of(trials[parent])) / max(1, len(fields))
            effects |= {name: max(effects.get(name, 0.0), change) for name in fields}
    return effects
