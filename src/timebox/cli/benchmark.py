"""`timebox benchmark`: compares recipes in repeated trials, and prints the statistics."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import convert

from timebox.cli import exit_status as exits
from timebox.cli.formatting import facts, json_line, say, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import Deadline, format_duration
from timebox.configs.benchmark import BenchmarkConfig
from timebox.errors import OutputError, one_line
from timebox.formatting import UNKNOWN, number, percent, plural

if TYPE_CHECKING:
    from rich.console import RenderableType

    from timebox.benchmarking.summary import BenchmarkSummary

SMALLEST_P = 0.001  # smaller p-values are printed as <0.001


HELP = VerbHelp(
    BenchmarkConfig,
    "compare recipes in repeated trials",
    "Trains every recipe with several seeds, each training in a process of its own under the same budget, and "
    "scores them afterwards, untimed and in full. Trials are interleaved. Prints means with 95 % intervals, and a "
    "paired t-test of every recipe against the first.",
    (
        "timebox benchmark digits --recipe auto --recipe haet2021 --trial-budget 10s",
        "timebox benchmark photos/ --recipe auto --recipe mine.toml --trial-budget 1m",
        "timebox benchmark cifar10 --trial-budget 10m --score test --seeds 3",
        "timebox benchmark --resume runs/benchmark-cifar10-20260101-120000",
    ),
    json_help="print JSON lines on stdout, one for each trial and last the summary",
)


def run(args: argparse.Namespace) -> int:
    config: BenchmarkConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    has_output = False

    def on_trial(record: Mapping[str, object]) -> None:
        nonlocal has_output
        has_output = True
        if args.json:
            write(json_line(record))

    from timebox.benchmarking.benchmark import benchmark  # imports torch, on the clock
    from timebox.benchmarking.summary import BenchmarkSummary

    try:
        done = benchmark(**config.arguments(), notify=say, on_trial=on_trial, deadline=deadline)
        summary = convert(done.summary, BenchmarkSummary)
        if args.json:
            write(json_line({"benchmark": done.path, **done.summary}))
        else:
            show(*renderables(summary, done.path))
    except OutputError as error:
        if has_output:  # the trials done are on disk
            raise exits.PartlyWrittenError(str(error)) from error
        raise
    flawed = summary.num_failed or summary.num_late or deadline.late
    return exits.LATE_OR_PARTLY_WRITTEN if flawed else exits.DONE


def renderables(summary: "BenchmarkSummary", path: Path) -> "Iterator[RenderableType]":
    """Tables and text that show a benchmark's summary on the terminal."""
    yield table(
        ("recipe", "n", "mean", "SD", "95 % interval", "time"),
        [
            (
                one.recipe,
                f"{one.n:,}",
                percent(one.mean),
                _points(one.sd),
                _interval(one.interval),
                UNKNOWN if one.wall_seconds is None else f"{one.wall_seconds:.1f} s",
            )
            for one in summary.recipes
        ],
    )
    if comparisons := summary.comparisons:
        corrected = "p, Holm" if len(comparisons) > 1 else "p"
        yield table(
            (f"against {comparisons[0].against}", "pairs", "points", "95 % interval", corrected),
            [
                (
                    one.recipe,
                    f"{one.num_pairs:,}",
                    _points(one.mean_difference, "+"),
                    _interval(one.interval, "+"),
                    _p_value(one.p_corrected),
                )
                for one in comparisons
            ],
        )
        yield "\n".join(one_line(f"  {one.recipe}: {one.verdict}") for one in comparisons)
        yield ""
    yield facts(_facts(summary, path))


def _facts(summary: "BenchmarkSummary", path: Path) -> Iterator[tuple[str, str]]:
    failed = f", {summary.num_failed} failed" if summary.num_failed else ""
    late = f", {summary.num_late} late" if summary.num_late else ""
    budget = format_duration(summary.trial_budget_seconds)
    yield "trials", f"{summary.num_done:,} of {summary.num_trials:,} done{failed}{late}, {budget} each"
    yield "scored", f"{summary.data}, {summary.score}, outside the trials' time"
    if summary.comparisons:
        test = summary.test
        correction = f", {test.correction}-corrected" if test.correction else ""
        yield "test", f"{test.name} at {test.alpha}{correction}; {plural(summary.complete_blocks, 'complete block')}"
    for note in summary.notes:
        yield "note", note
    yield "time", format_duration(summary.elapsed_seconds) + (": LATE" if summary.late else "")
    yield "benchmark", str(path)


def _points(share: float | None, sign: str = "") -> str:
    """A share in percentage points."""
    return UNKNOWN if share is None else f"{100 * share:{sign}.2f}"


def _interval(interval: tuple[float, float] | None, sign: str = "") -> str:
    return UNKNOWN if interval is None else f"{_points(interval[0], sign)} to {_points(interval[1], sign)}"


def _p_value(p: float | None) -> str:
    return f"<{SMALLEST_P}" if p is not None and p < SMALLEST_P else number(p, ".3f")
