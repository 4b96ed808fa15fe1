"""`timebox tune`: searches for a better recipe and trains by it, before one deadline."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from timebox.cli.exit_status import DONE, LATE_OR_PARTLY_WRITTEN
from timebox.cli.formatting import facts, json_line, percent, say, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import Deadline, format_duration
from timebox.configs.tune import TuneConfig
from timebox.errors import UsageError

JOIN_OPTIONS = ("data", "storage", "device", "data_dir", "max_bad_share", "cache")


HELP = VerbHelp(
    TuneConfig,
    "search for a better recipe, and train by it, before one deadline",
    "Half the budget goes into trainings on a cut of the data, which search the fields of the recipe. The best "
    "recipes are trained again with other seeds and checked on all images, then the winner is trained in the "
    "time that is left. Writes best.toml, which `timebox train --recipe` takes, trials.jsonl, tune.html and "
    "the final run.",
    (
        "timebox tune photos/ --budget 1h",
        "timebox tune cifar10 --train-limit 5000 --budget 20m --trial-budget 40s --space space.toml",
        "timebox tune photos/ --budget 1h --storage postgresql://me@host/searches --study photos",
        "timebox tune photos/ --join photos --storage postgresql://me@host/searches",
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
    arguments = config.arguments()
    study_to_join = arguments.pop("join")
    if study_to_join is not None:
        shared = {name: arguments[name] for name in JOIN_OPTIONS}
        num_done = join(**shared, study=study_to_join)
        write(facts([("trials", f"{num_done} done for {study_to_join}")]))
        return DONE
    tuned = tune(**arguments, notify=say, deadline=deadline)
    if args.json:
        write(json_line({"directory": tuned.path, **tuned.summary}))
    else:
        leaders = tuned.summary["leaders"]
        assert isinstance(leaders, Sequence)
        if leaders:
            show(table(("", "mean", "SD", "seeds"), [_row(leader) for leader in leaders]))
        write(facts(result_rows(tuned.path, tuned.summary)))
    return LATE_OR_PARTLY_WRITTEN if tuned.summary["late"] else DONE


def result_rows(path: object, summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The lines printed at the end, as (label, value)."""
    winner, final = summary["winner"], summary["final"]
    assert isinstance(winner, Mapping) and isinstance(final, Mapping)
    yield "trained", " ".join(winner["settings"]) or f"the starting recipe: {summary['why']}"
    if final["test_accuracy"] is not None:
        yield "test accuracy", f"{percent(final['test_accuracy'])} of {final['test_images']:,} images"
    elapsed, budget = summary["elapsed_seconds"], summary["budget_seconds"]
    assert isinstance(elapsed, float) and isinstance(budget, int | float)
    yield "trials", f"{summary['num_trials']}, {summary['num_complete']} of them under the whole trial budget"
    yield "time", f"{format_duration(elapsed)} of {format_duration(budget)}"
    yield "written", f"{path}: best.toml, trials.jsonl, tune.html, final"


def _row(leader: Mapping[str, object]) -> Sequence[str]:
    from timebox.reporting import settings_text

    accuracies, settings, spread = leader["accuracies"], leader["settings"], leader["sd"]
    assert isinstance(accuracies, Sequence) and isinstance(settings, Sequence)
    return (
        settings_text(settings),
        percent(leader["mean"]),
        "–" if not isinstance(spread, float) else f"{100 * spread:.2f}",
        str(len(accuracies)),
    )
