"""`timebox benchmark`: recipes in repeated trials, and what these show."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from timebox.cli import exit_status as exits
from timebox.cli.formatting import facts, json_line, number, percent, plural, say, show, table, write
from timebox.cli.parsing import (
    Parser,
    Subparsers,
    add_cut,
    add_data_dir,
    add_device,
    add_max_bad_share,
    add_precision,
    add_settings,
    add_tta,
    add_verb,
    split_choice,
    whole_number,
)
from timebox.clock import Deadline, format_duration, parse_budget
from timebox.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

SCORES = ("val", "test")
SMALLEST_P = 0.001  # smaller ones are not told apart in a table


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox benchmark`."""
    parser = add_verb(
        subparsers,
        "benchmark",
        "compare recipes in repeated trials",
        "Trains every recipe with several seeds, each training in a process of its own under the same budget, and "
        "scores them afterwards, untimed and in full. Trials are interleaved. Gives means with 95 % intervals, and a "
        "paired t-test of every recipe against the first.",
        (
            "timebox benchmark digits --recipe auto --recipe haet2021 --trial-budget 10s",
            'timebox benchmark cifar10 --recipe haet2021 --recipe "haet2021 max_lr=0.4 cutout_size=0" '
            "--trial-budget 60s --train-limit 5000",
            "timebox benchmark cifar10 --trial-budget 10m --score test --seeds 3",
            "timebox benchmark --resume runs/benchmark-cifar10-20260101-120000",
        ),
    )
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        help="a folder of class folders, a file, or a name: cifar10, digits, …; not needed with --resume",
    )
    _add_trial_options(parser)
    _add_data_options(parser)
    machine = parser.add_argument_group("machine")
    add_device(machine)
    add_precision(machine)
    _add_output_options(parser)
    return parser


def _add_trial_options(parser: Parser) -> None:
    trials = parser.add_argument_group("trials")
    trials.add_argument(
        "--recipe",
        metavar="RECIPE",
        action="append",
        default=[],
        dest="recipes",
        help="auto, a name or a .toml file, with settings of its own if need be, as in "
        '--recipe "haet2021 max_lr=0.4"; may be repeated, the others are compared with the first (default: auto)',
    )
    add_settings(trials, "every recipe")
    trials.add_argument(
        "--seeds", metavar="N", type=whole_number(1), default=5, help="seeds for every recipe (default: 5)"
    )
    trials.add_argument(
        "--trial-budget", metavar="TIME", help="deadline of one training, from start to exit of its process: 60s, 10m"
    )
    trials.add_argument(
        "--budget", metavar="TIME", help="deadline of the whole benchmark (default: none, all trials are run)"
    )


def _add_data_options(parser: Parser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--score",
        choices=SCORES,
        default="val",
        help="val: what was held out, to choose by; test: the data's own test split, for a record, trained on all "
        "the rest (default: val)",
    )
    add_tta(data)
    data.add_argument(
        "--val",
        metavar="FRACTION|PATH|rest|none",
        type=split_choice,
        help="what to hold out and score, as of `timebox train` (default: rest with --train-limit, else the data's own "
        "val split, else a tenth of train)",
    )
    add_cut(data)
    add_max_bad_share(data)
    add_data_dir(data)


def _add_output_options(parser: Parser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", metavar="DIR", help="where all goes, new or empty (default: runs/benchmark-<data>-<date>-<time>)"
    )
    output.add_argument(
        "--resume", metavar="DIR", help="do the trials that are missing or failed; all else is the benchmark's own"
    )
    output.add_argument("--keep-runs", action="store_true", help="keep the model of every trial")
    output.add_argument(
        "--json", action="store_true", help="print JSON lines on stdout, one for each trial and last the summary"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the trials, and prints what they show."""
    if args.resume is None and args.data is None:
        raise UsageError("say what to measure on, for instance timebox benchmark digits --trial-budget 10s")
    if args.resume is None and args.trial_budget is None:
        raise UsageError("say how long one trial may take, for instance --trial-budget 60s")
    deadline = Deadline.since_process_start(None if args.budget is None else parse_budget(args.budget))
    has_output = False

    def on_trial(record: Mapping[str, object]) -> None:
        nonlocal has_output
        has_output = True
        if args.json:
            write(json_line(record))

    from timebox.benchmarking.benchmark import benchmark  # torch comes in here, on the clock

    try:
        done = benchmark(
            args.data,
            recipes=tuple(args.recipes) or ("auto",),
            seeds=args.seeds,
            trial_budget=args.trial_budget,
            settings=tuple(args.settings),
            score=args.score,
            tta=args.tta,
            val=args.val,
            train_limit=args.train_limit,
            split_seed=args.split_seed,
            coarse=args.coarse,
            data_dir=args.data_dir,
            max_bad_share=args.max_bad_share,
            device=args.device,
            precision=args.precision,
            out=args.out,
            resume=args.resume,
            keep_runs=args.keep_runs,
            notify=say,
            on_trial=on_trial,
            deadline=deadline,
        )
        summary = {"benchmark": str(done.path), **done.summary}
        if args.json:
            write(json_line(summary))
        else:
            show(*renderables(summary))
    except OutputError as error:
        if has_output:  # as much as was measured is on disk
            raise exits.PartlyWrittenError(str(error)) from error
        raise
    flawed = summary["num_failed"] or summary["num_late"] or deadline.late
    return exits.LATE_OR_PARTLY_WRITTEN if flawed else exits.DONE


def renderables(summary: Mapping[str, object]) -> "Iterator[RenderableType]":
    """What the terminal shows of a benchmark."""
    recipes, comparisons = _mappings(summary["recipes"]), _mappings(summary["comparisons"])
    yield table(("recipe", "n", "mean", "SD", "95 % interval", "time"), [_row(one) for one in recipes])
    if comparisons:
        corrected = "p, Holm" if len(comparisons) > 1 else "p"
        headers = (f"against {recipes[0]['recipe']}", "pairs", "points", "95 % interval", corrected)
        yield table(headers, [_comparison_row(one) for one in comparisons])
        yield "\n".join(f"  {one['recipe']}: {one['verdict']}" for one in comparisons)
        yield ""
    yield facts(_facts(summary))


def _row(figures: Mapping[str, object]) -> Sequence[str]:
    seconds = figures["wall_seconds"]
    return (
        str(figures["recipe"]),
        number(figures["n"]),
        percent(figures["mean"]),
        _points(figures["sd"], ""),
        _interval(figures["interval"], ""),
        f"{seconds:.1f} s" if isinstance(seconds, float) else number(None),
    )


def _comparison_row(comparison: Mapping[str, object]) -> Sequence[str]:
    p = comparison["p_corrected"]
    return (
        str(comparison["recipe"]),
        number(comparison["num_pairs"]),
        _points(comparison["mean_difference"], "+"),
        _interval(comparison["interval"], "+"),
        f"<{SMALLEST_P}" if isinstance(p, float) and p < SMALLEST_P else number(p, ".3f"),
    )


def _facts(summary: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    done, total, test = summary["num_done"], summary["num_trials"], summary["test"]
    failed = f", {summary['num_failed']} failed" if summary["num_failed"] else ""
    late = f", {summary['num_late']} late" if summary["num_late"] else ""
    budget, elapsed = summary["trial_budget_seconds"], summary["elapsed_seconds"]
    assert isinstance(budget, float)
    assert isinstance(elapsed, float)
    yield "trials", f"{number(done)} of {number(total)} done{failed}{late}, {format_duration(budget)} each"
    yield "scored", f"{summary['data']}, {summary['score']}, outside the trials' time"
    if summary["comparisons"] and isinstance(test, Mapping):
        blocks = summary["complete_blocks"]
        correction = f", {test['correction']}-corrected" if test["correction"] else ""
        whole = plural(blocks, "complete block") if isinstance(blocks, int) else ""
        yield "test", f"{test['name']} at {test['alpha']}{correction}; {whole}"
    for note in _texts(summary["notes"]):
        yield "note", note
    yield "time", format_duration(elapsed) + (": LATE" if summary["late"] else "")
    yield "benchmark", str(summary["benchmark"])


def _points(share: object, sign: str) -> str:
    """A share in percentage points."""
    return number(share * 100 if isinstance(share, float) else None, f"{sign}.2f")


def _interval(interval: object, sign: str) -> str:
    if not isinstance(interval, Sequence) or len(interval) != 2:
        return number(None)
    return f"{_points(interval[0], sign)} to {_points(interval[1], sign)}"


def _mappings(values: object) -> list[Mapping[str, object]]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, Sequence) else []


def _texts(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, Sequence) else []
