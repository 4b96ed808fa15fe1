"""`timebox train`: images in, a trained model and its proof out, before the deadline."""

import argparse
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli import exit_status as exits
from timebox.cli.formatting import facts, json_line, number, percent, write
from timebox.cli.parsing import (
    Parser,
    Subparsers,
    add_cache,
    add_cut,
    add_data_dir,
    add_device,
    add_json,
    add_max_bad_share,
    add_precision,
    add_settings,
    add_verb,
    split_choice,
    whole_number,
)
from timebox.clock import Deadline, format_duration, parse_budget
from timebox.errors import OutputError, UsageError
from timebox.machine import is_worker_rank

if TYPE_CHECKING:
    from timebox.run.run import Run

AFTER_TRAINING = ("saving", "scoring", "reporting")  # phases


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox train`."""
    parser = add_verb(
        subparsers,
        "train",
        "train a classifier inside a time budget",
        "Plans, trains, evaluates and writes a run directory, all before the budget is over. Exactly one of "
        "--budget and --steps is needed, unless a run is resumed or replayed. Several processes that torchrun starts "
        "train together.",
        (
            "timebox train digits --test 0.2 --budget 60s",
            "timebox train photos/ --budget 10m",
            "timebox train cifar10 --recipe haet2021 --set max_lr=0.8 --budget 1h30m",
            "timebox train --resume runs/photos-20260101-120000",
            "torchrun --nproc-per-node 8 -m timebox train photos/ --budget 10m",
        ),
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="a folder of class folders, a file, or a name: cifar10, digits, …; with --resume or --replay "
        "only where the run's data have moved",
    )

    length = parser.add_argument_group("how long")
    length.add_argument(
        "--budget",
        metavar="TIME",
        help="deadline of the whole command, from its start to its exit: 90s, 10m, 1h30m; a bare number is seconds",
    )
    length.add_argument(
        "--steps",
        metavar="N",
        type=whole_number(1),
        help="train N optimizer steps in place of a budget, reading no clock: repeatable byte for byte on a CPU",
    )

    method = parser.add_argument_group("method")
    method.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        default="auto",
        help="auto, a name that `timebox recipes` lists, or a .toml file (default: auto, planned from the data, the "
        "hardware and the budget)",
    )
    add_settings(method, "the recipe")
    method.add_argument(
        "--init",
        metavar="RUN|FILE",
        help="begin with the weights of a run, or of its model.safetensors; classes it does not have get a new head",
    )
    method.add_argument(
        "--seed", metavar="N", type=whole_number(0), default=0, help="seed of the training (default: 0)"
    )

    _add_data_options(parser)

    machine = parser.add_argument_group("machine")
    add_device(machine)
    add_precision(machine)

    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="DIR", help="the run directory, new or empty (default: runs/<data>-<date>-<time>)"
    )
    output.add_argument(
        "--overwrite", action="store_true", help="replace the run that DIR holds, once the new one is whole"
    )
    output.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run that was stopped or killed, from its last checkpoint and with the time it had left, or "
        "with a new --budget",
    )
    output.add_argument(
        "--replay",
        metavar="RUN",
        help="take the steps of a finished run again, decisions of the clock included, and compare the weights",
    )
    add_json(output)
    return parser


def _add_data_options(parser: Parser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--val",
        metavar="FRACTION|PATH|rest|none",
        type=split_choice,
        help="what to validate on: a share of train such as 0.1, other data, what --train-limit left out, or nothing "
        "(default: the data's own val split, else a tenth of train, at most 10,000 images)",
    )
    data.add_argument(
        "--test",
        metavar="FRACTION|PATH|none",
        type=split_choice,
        help="what to test on: a share of train such as 0.2, other data, or nothing "
        "(default: the data's own test split, else nothing)",
    )
    data.add_argument(
        "--test-limit",
        metavar="N",
        type=whole_number(1),
        help="test on N images, balanced over the classes, as in --test-limit 1000 (default: all)",
    )
    data.add_argument(
        "--no-scoring",
        action="store_false",
        dest="scoring",
        help="leave val and test for `timebox evaluate`; all the time goes into training",
    )
    data.add_argument(
        "--group-by",
        metavar="REGEX",
        help="keep images together when they are split: those for whose path it finds the same, such as the frames of "
        r"a video with '(video\d+)_'",
    )
    data.add_argument(
        "--no-thumbnails",
        action="store_false",
        dest="thumbnails",
        help="keep images of the data out of the report and the run directory",
    )
    add_cut(data)
    add_max_bad_share(data)
    add_cache(data)
    add_data_dir(data)


def run(args: argparse.Namespace) -> int:
    """Trains, and prints the summary."""
    if args.budget is not None and args.steps is not None:
        raise UsageError("--budget and --steps exclude each other: give --budget for a deadline or --steps for a count")
    if args.resume is not None and args.replay is not None:
        raise UsageError("--resume and --replay exclude each other")
    continued = args.resume is not None or args.replay is not None
    if args.budget is None and args.steps is None and not continued:
        raise UsageError("say how long to train, for instance --budget 10m (or --steps 1000 to count steps instead)")
    budget_seconds = None if args.budget is None else parse_budget(args.budget)
    deadline = Deadline.since_process_start(budget_seconds)
    if is_worker_rank():
        return _follow(args, deadline)

    finished = _train(args, budget_seconds, deadline)
    summary = {"run": str(finished.path), **finished.summary}
    try:
        write(json_line(summary) if args.json else facts(result_rows(summary)) + "\n")
    except OutputError as error:
        raise exits.PartlyWrittenError(f"{error}; the run itself is whole, in {finished.path}") from error
    if summary.get("identical") is False:
        return exits.OWN_FAULT
    late = bool(summary.get("late")) or deadline.late
    return exits.LATE_OR_PARTLY_WRITTEN if late or summary.get("unwritten") else exits.DONE


def _train(args: argparse.Namespace, budget_seconds: float | None, deadline: Deadline) -> "Run":
    with display.progress(budget_seconds) as reporter:
        from timebox.pipelines.train import train

        try:
            return train(
                args.data,
                budget=budget_seconds,
                steps=args.steps,
                recipe=args.recipe,
                settings=args.settings,
                val=args.val,
                test=args.test,
                train_limit=args.train_limit,
                test_limit=args.test_limit,
                scoring=args.scoring,
                thumbnails=args.thumbnails,
                split_seed=args.split_seed,
                seed=args.seed,
                device=args.device,
                precision=args.precision,
                init=args.init,
                out=args.out,
                overwrite=args.overwrite,
                coarse=args.coarse,
                group_by=args.group_by,
                resume=args.resume,
                replay=args.replay,
                data_dir=args.data_dir,
                max_bad_share=args.max_bad_share,
                cache=args.cache,
                reporter=reporter,
                deadline=deadline,
            )
        except OutputError as error:
            if reporter.last_phase in AFTER_TRAINING:
                raise exits.PartlyWrittenError(str(error)) from error
            raise


def _follow(args: argparse.Namespace, deadline: Deadline) -> int:
    """The part of a process that another leads: it prints nothing but what went wrong here."""
    from timebox.jobs.data import DatasetReader
    from timebox.jobs.worker import run_worker
    from timebox.reporter import SilentReporter
    from timebox.runtime.device import resolve_device

    data_dir = Path(args.data_dir) if args.data_dir else None
    reader = DatasetReader(data_dir, args.max_bad_share, SilentReporter().note, deadline, cache=args.cache)
    run_worker(resolve_device(args.device), deadline, reader)
    return exits.DONE


def result_rows(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What is printed at the end, as (label, value)."""
    return stopped_facts(summary) if summary.get("stopped") else summary_facts(summary)


def stopped_facts(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The lines about a run that was stopped."""
    yield "stopped", "the model is kept as far as it came"
    yield from _ranks(summary)
    yield from _time(summary)
    yield "run", str(summary["run"])
    yield "", ""
    yield "next", f"timebox train --resume {shlex.quote(str(summary['run']))}"


def summary_facts(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The lines of the final summary, on one screen."""
    yield from _scores(summary)
    yield "", ""
    yield from _time(summary)
    yield "", ""
    yield (
        "training",
        f"{number(summary.get('steps'))} steps · {number(summary.get('epochs'), ',.1f')} epochs · "
        f"{number(summary.get('images_per_second'), ',.0f')} images/s",
    )
    yield from _ranks(summary)
    recipe = summary.get("recipe")
    name = recipe.get("name") if isinstance(recipe, Mapping) else recipe
    yield (
        "with",
        f"recipe {name} · {summary.get('device')} · {summary.get('precision')} · seed {summary.get('seed')}",
    )
    yield "run", str(summary["run"])
    if (page := Path(str(summary["run"])) / "report.html").is_file():
        yield "report", str(page)
    if "identical" in summary:
        alike = "the same weights, byte for byte" if summary["identical"] else "NOT the same weights"
        yield "replay of", f"{summary['replay_of']}: {alike}"
    yield "", ""
    where = shlex.quote(str(summary["run"]))
    source = summary.get("source")
    data = source.get("data") if isinstance(source, Mapping) else "DATA"
    yield "next", f"timebox evaluate {where} {shlex.quote(str(data))}"
    yield "next", f"timebox predict {where} IMAGE…"


def _ranks(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """A line for each process of several that trained together, and one for each that was lost."""
    ranks, lost = summary.get("ranks"), summary.get("rank_failures")
    for rank in ranks if isinstance(ranks, list) else ():
        waiting = rank.get("waiting_share")
        waits = "" if waiting is None else f", waited {percent(waiting, 0)} of the time"
        yield (
            f"rank {rank.get('rank')}",
            f"{rank.get('host')} · {number(rank.get('images_per_second'), ',.0f')} images/s{waits}",
        )
    for line in lost if isinstance(lost, list) else ():
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
