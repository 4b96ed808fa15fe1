"""The results of a search: candidates for the final run, best.toml, importance of the fields, summary.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import optuna
import tomli_w
from optuna.importance import get_param_importances

from timebox.file_versions import TUNE_SUMMARY_FORMAT
from timebox.recipe import AUTO, RecipeSpec
from timebox.reporting import settings_text
from timebox.run.run import Run
from timebox.tuning import study as studies
from timebox.tuning.directory import TuneConfig
from timebox.tuning.space import Space
from timebox.tuning.study import SETTINGS, SearchSpec

# Importance of the fields is unknown with fewer measured trials.
MIN_TRIALS_FOR_IMPORTANCE = 10


@dataclass(frozen=True)
class Candidate:
    """Settings that the final run may use, and their trial; no settings and None for the starting recipe."""

    trial: int | None
    settings: tuple[str, ...]

    @property
    def text(self) -> str:
        """For the user."""
        text = settings_text(self.settings)
        return f"trial {self.trial} ({text})" if self.settings else text


def candidates_of(study: optuna.Study, num_top_trials: int) -> list[Candidate]:
    """The starting recipe, then the top trials, best first."""
    best = [Candidate(trial.number, tuple(trial.user_attrs[SETTINGS])) for trial in studies.best_trials(study)]
    return [Candidate(None, ()), *[one for one in best if one.settings][: max(0, num_top_trials)]]


def best_toml(draft: RecipeSpec) -> str:
    """The recipe file of a draft. One that ``auto`` plans still extends it, and keeps its multiples."""
    if draft.fixed is not None:
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
    lowest_rung = optuna.create_study(direction="maximize")
    for trial in study.get_trials(deepcopy=False):
        if studies.is_measured(trial, space):
            value = studies.first_accuracy_of(trial)
            lowest_rung.add_trial(
                optuna.create_trial(params=trial.params, distributions=space.distributions, value=value)
            )
    values = [trial.value for trial in lowest_rung.trials]
    if len(values) < MIN_TRIALS_FOR_IMPORTANCE or len(set(values)) == 1:
        return {}
    return get_param_importances(lowest_rung)


def trial_text(line: Mapping[str, Any]) -> str:
    """One line for the user about a finished trial, from its line of trials.jsonl."""
    accuracy, budget = line["accuracy"], line["budget_seconds"]
    result = f"{accuracy:6.2%} in {budget:.0f}s" if accuracy else line["reason"] or line["state"]
    return f"trial {line['trial']:>3}  {result}  {settings_text(line['settings'])}"


def summary_of(
    config: TuneConfig,
    spec: SearchSpec,
    trials: Sequence[Mapping[str, Any]],
    repeats: Sequence[Mapping[str, Any]],
    winner: Candidate,
    run: Run,
) -> dict[str, object]:
    """The content of summary.json; ``trials`` and ``repeats`` are lines of trials.jsonl."""
    return {
        "format": TUNE_SUMMARY_FORMAT.newest,
        "command": config.command(),
        "budget_seconds": config.budget_seconds,
        "trial_budgets": list(spec.rungs),
        "images_a_trial": spec.num_images,
        "workers": config.workers,
        "num_trials": len(trials),
        "num_complete": sum(line["state"] == "complete" for line in trials),
        "num_failed": sum(line["state"] == "failed" for line in trials),
        "winner": {"trial": winner.trial, "settings": list(winner.settings)},
        "leaders": _repeated_candidates([line for line in repeats if line["phase"] == "repeat"]),
        "check": [
            {"settings": line["settings"], "accuracy": line["accuracy"]} for line in repeats if line["phase"] == "check"
        ],
        "final": {
            name: run.summary.get(name)
            for name in ("test_accuracy", "test_images", "train_images", "elapsed_seconds", "late", "epochs")
        },
        "recipe": run.recipe.as_dict(),
    }


def _repeated_candidates(repeats: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Mean and standard deviation of the accuracy over the seeds of each candidate, best first."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for line in repeats:
        groups.setdefault(tuple(line["settings"]), []).append(line)
    results: list[dict[str, Any]] = []
    for settings, lines in groups.items():
        accuracies = [float(line["accuracy"]) for line in lines]
        spread = stdev(accuracies) if len(accuracies) > 1 else None
        results.append(
            {"trial": lines[0]["trial"], "settings": list(settings), "accuracies": accuracies,
             "mean": fmean(accuracies), "sd": spread}
        )  # fmt: skip
    return sorted(results, key=lambda result: -result["mean"])
