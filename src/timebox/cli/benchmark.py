"""`timebox benchmark`: compares recipes in repeated trials, and prints the statistics."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from timebox.cli import exit_status as exits
from timebox.cli.formatting import facts, json_line, number, percent, plural, say, show, table, write
from timebox.cli.parsing import Parser, Subparsers, add_json, add_verb
from timebox.clock import Deadline, format_duration
from timebox.configs.benchmark import BenchmarkConfig
from timebox.errors import OutputError

if TYPE_CHECKING:
    from rich.console import RenderableType

SMALLEST_P = 0.001  # smaller p-values are shown as <0.001


def add_parser(subparsers: Subparsers) -> Parser:
    """Adds the options of `timebox benchmark`."""
    parser = add_verb(
        subparsers,
        "benchmark",
        BenchmarkConfig,
        "compare recipes in repeated trials",
        "Trains every recipe with several seeds, each training in a process of its own under the same budget, and "
        "scores them afterwards, untimed and in full. Trials are interleaved. Prints means with 95 % intervals, and a "
        "paired t-test of every recipe against the first.",
        (
            "timebox benchmark digits --recipe auto --recipe haet2021 --trial-budget 10s",
            'timebox benchmark cifar10 --recipe haet2021 --recipe "haet2021 max_lr=0.4 cutout_size=0" '
            "--trial-budget 60s --train-limit 5000",
            "timebox benchmark cifar10 --trial-budget 10m --score test --seeds 3",
            "timebox benchmark --resume runs/benchmark-cifar10-20260101-120000",
        ),
    )
    return add_json(parser, "print JSON lines on stdout, one for each trial and last the summary")


def run(args: argparse.Namespace) -> int:
    """Runs the trials, and prints the statistics."""
    config: BenchmarkConfig = args.config
    deadline = Deadline.since_process_start(config.budget)
    has_output = False

    def on_trial(record: Mapping[str, object]) -> None:
        nonlocal has_output
        has_output = True
        if args.json:
            write(json_line(record))

    from timebox.benchmarking.benchmark import benchmark  # imports torch, on the clock

    try:
        done = benchmark(**config.arguments(), notify=say, on_trial=on_trial, deadline=deadline)
        summary = {"benchmark": str(done.path), **done.summary}
        if args.json:
            write(json_line(summary))
        else:
            show(*renderables(summary))
    except OutputError as error:
        if has_output:  # the trials done are on disk
            raise exits.PartlyWrittenError(str(error)) from error
        raise
    flawed = summary["num_failed"] or summary["num_late"] or deadline.late
    return exits.LATE_OR_PARTLY_WRITTEN if flawed else exits.DONE


def renderables(summary: Mapping[str, object]) -> "Iterator[RenderableType]":
    """Tables and text that show a benchmark's summary on the terminal."""
    recipes, comparisons = _mappings(summary["recipes"]), _mappings(summary["comparisons"])
    yield table(("recipe", "n", "mean", "SD", "95 % interval", "time"), [_row(one) for one in recipes])
    if comparisons:
        corrected = "p, Holm" if len(comparisons) > 1 else "p"
        headers = (f"against {recipes[0]['recipe']}", "pairs", "points", "95 % interval", corrected)
        yield table(headers, [_comparison_row(one) for one in comparisons])
        yield "\n".join(f"  {one['recipe']}: {one['verdict']}" for one in comparisons)
        yield ""
    yield facts(_facts(summary))


def _row(statistics: Mapping[str, object]) -> Sequence[str]:
    seconds = statistics["wall_seconds"]
    return (
        str(statistics["recipe"]),
        number(statistics["n"]),
        percent(statistics["mean"]),
        _points(statistics["sd"], ""),
        _interval(statistics["interval"], ""),
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
