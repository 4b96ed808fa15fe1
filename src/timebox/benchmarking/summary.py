"""What the trials of a benchmark show: pure functions of its records."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from timebox.benchmarking.config import Asked
from timebox.benchmarking.directory import latest
from timebox.benchmarking.statistics import ALPHA, MIN_PAIRS, compare, describe
from timebox.benchmarking.trials import Record
from timebox.clock import format_duration
from timebox.file_versions import BENCHMARK_SUMMARY_FORMAT


def summarise(asked: Asked, records: Sequence[Record], stopped: str | None) -> dict[str, object]:
    """summary.json.

    Args:
        records: all of them, in order; of trials that were done again the last counts.
        stopped: what ended the benchmark before its last trial, ``budget`` or ``signal``; None where nothing did.
    """
    labels = [contender.label for contender in asked.contenders]
    last = latest(records)
    counted = list(last.values())
    complete = [block for block in range(asked.seeds) if all((label, block) in last for label in labels)]
    accuracies = {
        label: {
            block: _number(record["accuracy"]) for block in complete if "accuracy" in (record := last[label, block])
        }
        for label in labels
    }
    comparisons = compare(accuracies, labels)
    return {
        "format": BENCHMARK_SUMMARY_FORMAT.newest,
        "data": asked.data,
        "score": asked.score,
        "trial_budget_seconds": asked.trial_seconds,
        "num_trials": asked.seeds * len(labels),
        "num_done": sum("accuracy" in record for record in counted),
        "num_failed": sum("failed" in record for record in counted),
        "num_late": sum(bool(record.get("late")) for record in counted),
        "complete_blocks": len(complete),
        "stopped": stopped,
        "test": {
            "name": "two-sided paired t-test",
            "paired_by": "seed and block",
            "alpha": ALPHA,
            "correction": "Holm" if len(comparisons) > 1 else None,
            "min_pairs": MIN_PAIRS,
        },
        "recipes": [_figures(label, [record for record in counted if record["label"] == label]) for label in labels],
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        "notes": list(_notes(asked, last, len(complete), len(labels))),
    }


def _figures(label: str, records: Sequence[Record]) -> dict[str, object]:
    done = [record for record in records if "accuracy" in record]
    figures = describe([_number(record["accuracy"]) for record in done])
    return {
        "recipe": label,
        "n": figures.n,
        "mean": figures.mean,
        "sd": figures.sd,
        "interval": figures.interval,
        "num_failed": len(records) - len(done),
        "num_late": sum(bool(record.get("late")) for record in records),
        "wall_seconds": _mean(record.get("wall_seconds") for record in done),
        "images_per_second": _mean(record.get("images_per_second") for record in done),
    }


def _notes(
    asked: Asked, last: Mapping[tuple[str, int], Record], num_complete: int, num_contenders: int
) -> Iterator[str]:
    """What a reader of the figures must know."""
    records = list(last.values())
    started = {block for _, block in last}
    if left_out := len(started) - num_complete:
        blocks = "block is" if left_out == 1 else "blocks are"
        if num_contenders > 1:
            yield f"{left_out} incomplete {blocks} kept in the log and left out of the paired test"
    for record in records:
        if "failed" in record:
            yield f"failed: {record['label']}, seed {record['seed']}: {record['failed']}"
        elif record.get("late"):
            seconds = _number(record["wall_seconds"])
            yield f"late: {record['label']}, seed {record['seed']}: {seconds:.1f} s of {asked.trial_budget}"
    done = [record for record in records if "accuracy" in record]
    watched = {"commit": "commits of timebox", "versions": "versions", "device": "devices", "threads": "thread counts"}
    for name, words in watched.items():
        values = list(dict.fromkeys(_text(record.get(name)) for record in done))
        if len(values) > 1:
            yield f"the trials are of different {words}: {'; '.join(values)}"
    for contender in asked.contenders:
        yield from _differing_plans(contender.label, [r for r in done if r["label"] == contender.label])
    seen = max((int(_number(record.get("num_seen_in_training"))) for record in done), default=0)
    if seen:
        yield f"{seen} of the images scored are, pixel for pixel, among those trained on: the data hold some twice"


def _differing_plans(label: str, records: Sequence[Record]) -> Iterator[str]:
    """What of a recipe, planned anew in each trial, was not resolved alike."""
    plans = [
        {**recipe, "precision": record.get("precision")}
        for record in records
        if isinstance(recipe := record.get("recipe"), Mapping)
    ]
    differing = []
    for field in plans[0] if plans else ():
        values = list(dict.fromkeys(str(plan.get(field)) for plan in plans))
        if len(values) > 1:
            differing.append(f"{field} {', '.join(values)}")
    if differing:
        yield f"{label} was not planned alike in all trials: {'; '.join(differing)}"


def progress_line(record: Record, num_done: int, num_trials: int, label_width: int, seconds_left: float) -> str:
    """A trial in one line: how many are done, which it was, what it reached, and how long the rest takes."""
    count = f"{num_done:>{len(str(num_trials))}}/{num_trials}"
    which = f"{count}  {record['label']:<{label_width}}  seed {record['seed']}"
    left = f"  {format_duration(seconds_left)} left" if num_done < num_trials else ""
    if "failed" in record:
        return f"{which}  failed: {record['failed']}{left}"
    late = "  LATE" if record.get("late") else ""
    return f"{which}  {100 * _number(record['accuracy']):6.2f} %  {_number(record['wall_seconds']):.1f} s{late}{left}"


def _mean(values: Iterable[object]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return round(statistics.fmean(numbers), 2) if numbers else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return "unknown" if value is None else str(value)
