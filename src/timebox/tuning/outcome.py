"""The results of a search: candidates for the final run, best.toml, importance of the fields, summary.json."""

from collections.abc import Sequence
from statistics import fmean, stdev

import optuna
import tomli_w
from msgspec import Struct
from optuna.importance import get_param_importances

from timebox.recipes import AUTO, RecipeSpec
from timebox.reporting import settings_text
from timebox.run.json_values import Count, PositiveCount, RecipeFields, Seconds, Share
from timebox.tuning import study as studies
from timebox.tuning.directory import RepeatedTrial
from timebox.tuning.space import Space
from timebox.tuning.study import SETTINGS, SearchTrial

# Importance of the fields is unknown with fewer measured trials.
MIN_TRIALS_FOR_IMPORTANCE = 10


class Candidate(Struct, frozen=True):
    """Settings that the final run may use, and their trial; no settings and no trial for the starting recipe."""

    trial: Count | None
    settings: tuple[str, ...]

    @property
    def text(self) -> str:
        """The candidate in messages."""
        text = settings_text(self.settings)
        return f"trial {self.trial} ({text})" if self.settings else text


class RepeatedCandidate(Struct, frozen=True):
    """Settings that were trained again with other seeds, and the accuracies of these repeats."""

    trial: Count | None
    settings: tuple[str, ...]
    accuracies: tuple[Share, ...]
    mean: Share
    sd: float | None


class CheckedAccuracy(Struct, frozen=True):
    """The accuracy of the start or of the winner in the last comparison of the two."""

    settings: tuple[str, ...]
    accuracy: Share


class FinalRun(Struct, frozen=True, kw_only=True):
    """Values from summary.json of the final run."""

    test_accuracy: Share | None
    test_images: Count | None
    train_images: Count | None
    elapsed_seconds: float | None
    late: bool | None
    epochs: float | None


class SearchSummary(Struct, frozen=True, kw_only=True):
    """summary.json of a search.

    Attributes:
        trial_budgets: the budgets of trials in seconds, from the smallest to the largest.
        images_a_trial: number of training images of a trial.
        num_trials: number of trials that ended.
        num_complete: number of trials that reached the largest budget.
        winner: the settings of the final run.
        best_trials: the settings that were repeated, the best first.
        check: the last comparison of the start and the winner.
        final: results of the final run.
        recipe: all fields of the winner's recipe, by name.
        why: reason for which the final run uses the starting recipe; empty where it does not.
    """

    command: str
    budget_seconds: Seconds
    trial_budgets: tuple[Seconds, ...]
    images_a_trial: Count
    workers: PositiveCount
    num_trials: Count
    num_complete: Count
    num_failed: Count
    winner: Candidate
    best_trials: tuple[RepeatedCandidate, ...]
    check: tuple[CheckedAccuracy, ...]
    final: FinalRun
    recipe: RecipeFields
    why: str
    elapsed_seconds: float
    late: bool


def candidates_of(study: optuna.Study, num_top_trials: int) -> list[Candidate]:
    """The starting recipe, then the top trials, best first."""
    best = [Candidate(trial.number, tuple(trial.user_attrs[SETTINGS])) for trial in studies.best_trials(study)]
    return [Candidate(None, ()), *[one for one in best if one.settings][: max(0, num_top_trials)]]


def best_toml(draft: RecipeSpec) -> str:
    """The recipe file of a draft. One that ``auto`` plans still extends it, and keeps its multiples."""
    if draft.fixed is not None and not draft.fits_data:
        return draft.fixed.replace(name="best").to_toml()
    changes = {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in draft.overrides.items()
        if name != "name"
    }
    note = '# Multiples, such as "x0.5", are of what auto plans for the data, the budget and the hardware.\n'
    return note + tomli_w.dumps({"extends": AUTO, **changes})


def importance_of(study: optuna.Study, space: Space) -> dict[str, float]:
    """Share of the accuracy's variance at the lowest rung due to each field, adding up to 1; empty for too few trials.

    Optuna evaluates complete trials only, and most trials of a search are pruned: it gets a study in which all have the
    accuracy of the lowest rung as their value.
    """
    measured = [trial for trial in study.get_trials(deepcopy=False) if studies.is_measured(trial, space)]
    values = [studies.first_accuracy_of(trial) for trial in measured]
    if len(values) < MIN_TRIALS_FOR_IMPORTANCE or len(set(values)) == 1:
        return {}
    lowest_rung = optuna.create_study(direction="maximize")
    for trial, value in zip(measured, values, strict=True):
        lowest_rung.add_trial(optuna.create_trial(value=value, params=trial.params, distributions=space.distributions))
    return get_param_importances(lowest_rung)


def trial_text(trial: SearchTrial) -> str:
    """One line for the user about a finished trial."""
    result = f"{trial.accuracy:6.2%} in {trial.budget_seconds:.0f}s" if trial.accuracy else trial.reason or trial.state
    return f"trial {trial.trial:>3}  {result}  {settings_text(trial.settings)}"


def repeated_candidates(repeats: Sequence[RepeatedTrial]) -> tuple[RepeatedCandidate, ...]:
    """Mean and standard deviation of the accuracy over the seeds of each candidate, best first."""
    groups: dict[tuple[str, ...], list[RepeatedTrial]] = {}
    for line in repeats:
        if line.phase == "repeat":
            groups.setdefault(line.settings, []).append(line)
    results = []
    for settings, lines in groups.items():
        accuracies = tuple(line.accuracy for line in lines)
        spread = stdev(accuracies) if len(accuracies) > 1 else None
        results.append(RepeatedCandidate(lines[0].trial, settings, accuracies, fmean(accuracies), spread))
    return tuple(sorted(results, key=lambda result: -result.mean))
