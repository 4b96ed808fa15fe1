"""`timebox train`: trains a classifier before a deadline, and prints the summary of the run."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from timebox.cli import display
from timebox.cli import exit_status as exits
from timebox.cli.formatting import facts, json_line, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import Deadline, format_duration
from timebox.configs.train import CODE, TrainConfig
from timebox.errors import OutputError
from timebox.formatting import number, percent
from timebox.machine import is_worker_rank
from timebox.paths import shell_quote

AFTER_TRAINING = ("saving", "scoring", "reporting")  # phases


HELP = VerbHelp(
    TrainConfig,
    "train a classifier inside a time budget",
    "Plans, trains, evaluates and writes a run directory, all before the budget is over. Exactly one of "
    "--budget and --steps is needed, unless a run is resumed or replayed. Several processes that torchrun "
    "starts train together.",
    (
        "timebox train digits --test 0.2 --budget 60s",
        "timebox train photos/ --budget 10m",
        "timebox train cifar10 --recipe haet2021 --set max_lr=0.8 --budget 1h30m",
        "timebox train --resume runs/photos-20260101-120000",
        "torchrun --nproc-per-node 8 -m timebox train photos/ --budget 10m",
    ),
)


def run(args: argparse.Namespace) -> int:
    config: TrainConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    if is_worker_rank():
        return _run_worker_rank(config, deadline)

    with display.progress(config.budget) as reporter:
        from timebox.pipelines.train import train

        try:
            finished = train(**config.arguments(), reporter=reporter, deadline=deadline)
        except OutputError as error:
            if reporter.last_phase in AFTER_TRAINING:
                raise exits.PartlyWrittenError(str(error)) from error
            raise
    summary = {"run": str(finished.path), **finished.summary}
    rows = stopped_facts if summary.get("stopped") else summary_facts
    try:
        write(json_line(summary) if args.json else facts(rows(summary)) + "\n")
    except OutputError as error:
        raise exits.PartlyWrittenError(f"{error}; the run itself is whole, in {finished.path}") from error
    if summary.get("identical") is False:
        return exits.OWN_FAULT
    late = bool(summary.get("late")) or deadline.late
    return exits.LATE_OR_PARTLY_WRITTEN if late or summary.get("unwritten") else exits.DONE


def _run_worker_rank(config: TrainConfig, deadline: Deadline) -> int:
    """Train as one of the ranks that the main rank directs. Prints nothing but errors of this rank."""
    from timebox.jobs.data import DatasetReader
    from timebox.jobs.worker import run_worker
    from timebox.progress import SilentReporter
    from timebox.recipes import recipe_request
    from timebox.runtime.device import resolve_device

    reader = DatasetReader(config.data_dir, config.max_bad_share, SilentReporter().note, deadline, cache=config.cache)
    recipe_request(
        config.recipe, config.settings, {option: getattr(config, option) for option in CODE}, config.trust_code
    )
    run_worker(resolve_device(config.device), deadline, reader, config.trust_code)
    return exits.DONE


def stopped_facts(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The lines printed for a run that was stopped, as (label, value)."""
    yield "stopped", "the model is kept as far as it came"
    yield from _ranks(summary)
    yield from _time(summary)
    yield "run", str(summary["run"])
    yield "", ""
    yield "next", f"timebox train --resume {shell_quote(str(summary['run']))}"


def summary_facts(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The lines printed for a finished run, on one screen, as (label, value)."""
    yield from _scores(summary)
    yield "", ""
    yield from _time(summary)
    yield "", ""
    steps, epochs = number(summary.get("steps")), number(summary.get("epochs"), ",.1f")
    speed = f"{number(summary.get('images_per_second'), ',.0f')} images/s"
    yield "training", f"{steps} steps · {epochs} epochs · {speed}"
    yield from _ranks(summary)
    recipe = summary.get("recipe")
    name = recipe.get("name") if isinstance(recipe, Mapping) else recipe
    yield "with", f"recipe {name} · {summary.get('device')} · {summary.get('precision')} · seed {summary.get('seed')}"
    yield "run", str(summary["run"])
    if (page := Path(str(summary["run"])) / "report.html").is_file():
        yield "report", str(page)
    if "identical" in summary:
        alike = "the same weights, byte for byte" if summary["identical"] else "NOT the same weights"
        yield "replay of", f"{summary['replay_of']}: {alike}"
    yield "", ""
    run_path = shell_quote(str(summary["run"]))
    source = summary.get("source")
    data = source.get("data") if isinstance(source, Mapping) else "DATA"
    yield "next", f"timebox evaluate {run_path} {shell_quote(str(data))}"
    yield "next", f"timebox predict {run_path} IMAGE…"


def _ranks(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """A line for each rank that trained, if there were several, and one for each that failed."""
    ranks, failures = summary.get("ranks"), summary.get("rank_failures")
    for rank in ranks if isinstance(ranks, list) else ():
        waiting = rank.get("waiting_share")
        waits = "" if waiting is None else f", waited {percent(waiting, 0)} of the time"
        speed = f"{number(rank.get('images_per_second'), ',.0f')} images/s"
        yield f"rank {rank.get('rank')}", f"{rank.get('host')} · {speed}{waits}"
    for line in failures if isinstance(failures, list) else ():
        yield "lost", str(line)


def _scores(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for split in ("test", "val"):
        scored, total = summary.get(f"{split}_images"), summary.get(f"{split}_images_total")
        if summary.get(f"{split}_accuracy") is None:
            held_out = f"   {number(total)} images held out" if total else ""
            yield f"{split} accuracy", f"not measured{held_out}"
        else:
            of = f" of {number(total)}" if isinstance(total, int) and total != scored else ""
            on = f"   on {number(scored)}{of} images" if isinstance(scored, int) else ""
            yield f"{split} accuracy", percent(summary[f"{split}_accuracy"]) + on
    forecast = summary.get("forecast")
    if isinstance(forecast, Mapping):
        expected, low, high = (percent(forecast.get(name), 0) for name in ("expected", "low", "high"))
        yield "forecast", f"{expected}   80 % interval: {low} to {high}"
    if isinstance(blend := summary.get("blend"), Mapping):
        own, other = (percent(blend.get(f"{name}_val_accuracy")) for name in ("network", "pretrained"))
        share = percent(blend.get("share"), 0)
        yield "blend", f"{share} pretrained features   on val alone: features {other}, network {own}"


def _time(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    elapsed, budget = summary.get("elapsed_seconds"), summary.get("budget_seconds")
    if isinstance(elapsed, int | float):
        of = f" of {format_duration(budget)}" if isinstance(budget, int | float) else ""
        yield "time", format_duration(elapsed) + of + (": LATE" if summary.get("late") else "")
    phases = summary.get("phases")
    if isinstance(phases, Mapping):
        spent = [f"{name} {format_duration(seconds)}" for name, seconds in phases.items() if seconds >= 0.05]
        for start in range(0, len(spent), 4):
            yield "spent on", " · ".join(spent[start : start + 4])
