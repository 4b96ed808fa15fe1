"""What came of a search, and the words for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import optuna
import tomli_w
from optuna.importance import get_param_importances

from timebox.file_versions import TUNE_SUMMARY_FORMAT
from timebox.recipe import AUTO, RecipeSpec
from timebox.reporting import settings_text
from timebox.run.run import Run
from timebox.tuning import study as studies
from timebox.tuning.directory import Asked, Line
from timebox.tuning.space import Space
from timebox.tuning.study import SETTINGS, Search

# Fewer trials say nothing of what matters.
FEWEST_TRIALS = 10


@dataclass(frozen=True)
class Candidate:
    """Settings that may win: none for what was started from."""

    trial: int | None
    settings: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words."""
        words = settings_text(self.settings)
        return f"trial {self.trial} ({words})" if self.settings else words


def candidates_of(study: optuna.Study, num_leaders: int) -> list[Candidate]:
    """What was started from, and the best of the others."""
    best = (Candidate(trial.number, tuple(trial.user_attrs[SETTINGS])) for trial in studies.leaders(study))
    return [Candidate(None, ()), *[one for one in best if one.settings][: max(0, num_leaders)]]


def best_toml(draft: RecipeSpec) -> str:
    """A recipe file: one that ``auto`` plans stays so, and keeps its multiples."""
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
    """How much of what differs among the shortest trainings is due to each field, adding up to 1; empty where there are
    too few of them."""
    shortest = optuna.create_study(direction="maximize")
    for trial in study.get_trials(deepcopy=False):
        if studies.is_measured(trial, space):
            value = studies.first_accuracy_of(trial)
            shortest.add_trial(optuna.create_trial(params=trial.params, distributions=space.distributions, value=value))
    if len(shortest.trials) < FEWEST_TRIALS or len({trial.value for trial in shortest.trials}) == 1:
        return {}
    return get_param_importances(shortest)


def trial_text(line: Line) -> str:
    """A line on a trial that has come to its end."""
    settings = line["settings"]
    assert isinstance(settings, Sequence)
    accuracy, budget = line["accuracy"], line["budget_seconds"]
    came_to = f"{accuracy:6.2%} in {budget:.0f}s" if accuracy else str(line["reason"] or line["state"])
    return f"trial {line['trial']:>3}  {came_to}  {settings_text(settings)}"


def summary_of(
    asked: Asked,
    search: Search,
    trials: Sequence[Line],
    repeats: Sequence[Line],
    winner: Candidate,
    run: Run,
) -> dict[str, object]:
    """summary.json: what was searched, what won by how much, and the final run."""
    return {
        "format": TUNE_SUMMARY_FORMAT.newest,
        "command": asked.command(),
        "budget_seconds": asked.budget_seconds,
        "trial_budgets": list(search.rungs),
        "images_a_trial": search.num_images,
        "workers": asked.workers,
        "num_trials": len(trials),
        "num_complete": sum(line["state"] == "complete" for line in trials),
        "num_failed": sum(line["state"] == "failed" for line in trials),
        "winner": {"trial": winner.trial, "settings": list(winner.settings)},
        "leaders": _leaders(repeats),
        "check": [
            {"settings": line["settings"], "accuracy": line["accuracy"]} for line in repeats if line["phase"] == "check"
        ],
        "final": {
            name: run.summary.get(name)
            for name in ("test_accuracy", "test_images", "train_images", "elapsed_seconds", "late", "epochs")
        },
        "recipe": run.recipe.as_dict(),
    }


def _leaders(repeats: Sequence[Line]) -> list[dict[str, object]]:
    """Mean and spread of what was trained again with other seeds, the best first."""
    by_settings: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for line in repeats:
        if line["phase"] == "repeat":
            by_settings.setdefault(tuple(map(str, line["settings"])), []).append(line)  # type: ignore[call-overload]
    leaders = []
    for settings, lines in by_settings.items():
        accuracies = [float(str(line["accuracy"])) for line in lines]
        leaders.append(
            {
                "trial": lines[0]["trial"],
                "settings": list(settings),
                "accuracies": accuracies,
                "mean": fmean(accuracies),
                "sd": stdev(accuracies) if len(accuracies) > 1 else None,
            }
        )
    return sorted(leaders, key=lambda leader: -float(str(leader["mean"])))
