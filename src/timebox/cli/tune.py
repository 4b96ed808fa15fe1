"""`timebox tune`: searches for a better recipe and trains by it, before one deadline."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timebox.cli.exit_status import DONE, LATE_OR_PARTLY_WRITTEN
from timebox.cli.formatting import facts, json_line, say, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import Deadline, format_duration
from timebox.configs.tune import TuneConfig
from timebox.errors import UsageError
from timebox.formatting import percent

HELP = VerbHelp(
    TuneConfig,
    "search for a better recipe, and train by it, before one deadline",
    "Half the budget goes into trainings on a subset of the data that vary the fields of the recipe. The best "
    "recipes are trained again with other seeds and checked on all images, then the winner is trained in the "
    "time that is left. Writes best.toml, which `timebox train --recipe` takes, trials.jsonl, tune.html and "
    "the final run.",
    (
        "timebox tune photos/ --budget 1h",
        "timebox tune photos/ --budget 20m --trial-budget 40s --space space.toml",
        "timebox tune photos/ --budget 1h --storage postgresql://me@host/db --study one",
        "timebox tune photos/ --join one --storage postgresql://me@host/db",
        "timebox tune --resume runs/tune-photos-20260101-120000",
    ),
)


def run(args: argparse.Namespace) -> int:
    """Searches, or joins a search, and prints the result."""
    config: TuneConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    try:
        from timebox.tuning.tune import join, tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UsageError("searching takes optuna: pip install 'timebox-vision[tune]'") from error
    if config.join is not None:
        write(facts([("trials", f"{join(config)} done for {config.join}")]) + "\n")
        return DONE
    arguments = config.arguments()
    del arguments["join"]
    tuned = tune(**arguments, notify=say, deadline=deadline)
    if args.json:
        write(json_line({"directory": tuned.path, **tuned.summary}))
    else:
        if best_trials := tuned.summary["best_trials"]:
            show(table(("", "mean", "SD", "seeds"), [_row(trial) for trial in best_trials]))
        write(facts(result_rows(tuned.path, tuned.summary)) + "\n")
    return LATE_OR_PARTLY_WRITTEN if tuned.summary["late"] else DONE


def result_rows(path: object, summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines printed at the end, as (label, value)."""
    winner, final = summary["winner"], summary["final"]
    yield "trained", " ".join(winner["settings"]) or f"the starting recipe: {summary['why']}"
    if final["test_accuracy"] is not None:
        yield "test accuracy", f"{percent(final['test_accuracy'])} of {final['test_images']:,} images"
    yield "trials", f"{summary['num_trials']}, {summary['num_complete']} of them under the whole trial budget"
    yield "time", f"{format_duration(summary['elapsed_seconds'])} of {format_duration(summary['budget_seconds'])}"
    yield "written", f"{path}: best.toml, trials.jsonl, tune.html, final"


def _row(trial: Mapping[str, Any]) -> Sequence[str]:
    from timebox.reporting import settings_text

    spread = "–" if trial["sd"] is None else f"{100 * trial['sd']:.2f}"
    return settings_text(trial["settings"]), percent(trial["mean"]), spread, str(len(trial["accuracies"]))
