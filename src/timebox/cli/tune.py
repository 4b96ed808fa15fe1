"""`timebox tune`: search for a better recipe, and train with it, under one deadline."""

import argparse
from collections.abc import Iterator, Mapping, Sequence

from timebox.cli.exit_status import DONE, LATE_OR_PARTLY_WRITTEN
from timebox.cli.formatting import facts, json_line, percent, say, show, table, write
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
from timebox.errors import UsageError

SAMPLERS = ("tpe", "random")


def add_parser(subparsers: Subparsers) -> Parser:
    """Add the options of `timebox tune`."""
    parser = add_verb(
        subparsers,
        "tune",
        "search for a better recipe, and train with it, under one deadline",
        "Half the budget goes into trials: trainings on a subset of the images, each with another recipe. The top "
        "trials are trained again with other seeds and the best one is checked on all images, then the winner is "
        "trained in the rest of the time. Writes best.toml for `timebox train --recipe`, trials.jsonl, tune.html and "
        "the final run.",
        (
            "timebox tune photos/ --budget 1h",
            "timebox tune cifar10 --train-limit 5000 --budget 20m --trial-budget 40s --space space.toml",
            "timebox tune photos/ --budget 1h --storage postgresql://me@host/searches --study photos",
            "timebox tune photos/ --join photos --storage postgresql://me@host/searches",
            "timebox tune --resume runs/tune-photos-20260101-120000",
        ),
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="a folder of class folders, a file, or a name: cifar10, digits, …; not needed with --resume",
    )
    _add_search_options(parser)
    _add_data_options(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument(
        "--workers", metavar="N", type=whole_number(1), default=1, help="worker processes that run trials (default: 1)"
    )
    add_device(machine)
    add_precision(machine)
    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="DIR", help="directory to write (default: runs/tune-<data>-<date>-<time>)")
    output.add_argument(
        "--resume",
        metavar="DIR",
        help="continue a search that was stopped; only --budget and --storage may be given too",
    )
    add_json(output)
    return parser


def _add_search_options(parser: Parser) -> None:
    search = parser.add_argument_group("search")
    search.add_argument("--budget", metavar="TIME", help="deadline of the whole search and the final run: 1h")
    search.add_argument(
        "--trial-budget",
        metavar="TIME",
        help="budget of one training of a trial (default: a sixtieth of the budget, 4s to 60s)",
    )
    search.add_argument("--recipe", metavar="NAME|FILE", default="auto", help="starting recipe (default: auto)")
    add_settings(search, "the starting recipe")
    search.add_argument(
        "--space", metavar="FILE", help="TOML file with the fields to search and their ranges (default: most fields)"
    )
    search.add_argument("--sampler", choices=SAMPLERS, default="tpe", help="sampler of the values (default: tpe)")
    search.add_argument(
        "--seed", metavar="N", type=whole_number(0), default=0, help="of the search and the final run (default: 0)"
    )
    search.add_argument(
        "--storage", metavar="URL", help="database for the trials, which other machines may share (default: a file)"
    )
    search.add_argument(
        "--study", metavar="NAME", help="name of the search in the storage (default: <data>-<date>-<time>)"
    )
    search.add_argument(
        "--join",
        metavar="NAME",
        help="run trials for the search of this name in --storage, which another machine began",
    )


def _add_data_options(parser: Parser) -> None:
    data = parser.add_argument_group("data")
    for name, purpose in (("val", "compare trials"), ("test", "score the final run")):
        data.add_argument(
            f"--{name}",
            metavar="FRACTION|PATH|none" if name == "test" else "FRACTION|PATH|rest",
            type=split_choice,
            help=f"images to {purpose} with (default: as of `timebox train`"
            + (")" if name == "test" else ", a fifth in place of a tenth)"),
        )
    data.add_argument("--group-by", metavar="REGEX", help="keep images together when they are split, as of train")
    add_cut(data)
    add_max_bad_share(data)
    add_cache(data)
    add_data_dir(data)


def run(args: argparse.Namespace) -> int:
    """Run or join a search, and print its results."""
    deadline = Deadline.since_process_start(None if args.budget is None else parse_budget(args.budget))
    try:
        from timebox.tuning.tune import join, tune
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise UsageError("searching needs optuna: pip install 'timebox[tune]'") from error
    if args.join is not None:
        if args.storage is None or args.data is None:
            raise UsageError("--join needs the data, and the --storage of the search")
        if args.resume is not None:
            raise UsageError("--join and --resume exclude each other")
        num_done = join(
            args.data,
            storage=args.storage,
            study=args.join,
            device=args.device,
            data_dir=args.data_dir,
            max_bad_share=args.max_bad_share,
            cache=args.cache,
        )
        write(facts([("trials", f"{num_done} done for {args.join}")]))
        return DONE
    tuned = tune(
        args.data,
        trial_budget=args.trial_budget,
        recipe=args.recipe,
        settings=tuple(args.settings),
        space=args.space,
        sampler=args.sampler,
        storage=args.storage,
        study=args.study,
        workers=args.workers,
        val=args.val,
        test=args.test,
        train_limit=args.train_limit,
        split_seed=args.split_seed,
        seed=args.seed,
        coarse=args.coarse,
        group_by=args.group_by,
        device=args.device,
        precision=args.precision,
        data_dir=args.data_dir,
        max_bad_share=args.max_bad_share,
        cache=args.cache,
        out=args.out,
        resume=args.resume,
        notify=say,
        deadline=deadline,
    )
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
    """The printed results, as (label, value)."""
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
