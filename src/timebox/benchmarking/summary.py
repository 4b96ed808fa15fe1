"""The summary of a benchmark's trials: pure functions of its records."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from timebox.benchmarking.directory import latest_records
from timebox.benchmarking.statistics import ALPHA, MIN_PAIRS, compare, describe
from timebox.benchmarking.trials import Record
from timebox.clock import format_duration
from timebox.configs.benchmark import BenchmarkConfig
from timebox.file_versions import BENCHMARK_SUMMARY_FORMAT


def summarise(config: BenchmarkConfig, records: Sequence[Record], stopped: str | None) -> dict[str, object]:
    """The content of summary.json.

    Args:
        records: of all trials, in order; of a trial that was repeated the last record counts.
        stopped: the reason that the benchmark ended before its last trial, ``budget`` or ``signal``; else None.
    """
    labels = [variant.label for variant in config.variants]
    last = latest_records(records)
    counted = list(last.values())
    complete = [block for block in range(config.seeds) if all((label, block) in last for label in labels)]
    accuracies = {
        label: {
            block: _number(record["accuracy"]) for block in complete if "accuracy" in (record := last[label, block])
        }
        for label in labels
    }
    comparisons = compare(accuracies, labels)
    return {
        "format": BENCHMARK_SUMMARY_FORMAT.newest,
        "data": config.data,
        "score": config.score,
        "trial_budget_seconds": config.trial_seconds,
        "num_trials": config.seeds * len(labels),
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
        "recipes": [
            _recipe_statistics(label, [record for record in counted if record["label"] == label]) for label in labels
        ],
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        "notes": list(_notes(config, last, len(complete))),
    }


def _recipe_statistics(label: str, records: Sequence[Record]) -> dict[str, object]:
    done = [record for record in records if "accuracy" in record]
    statistics = describe([_number(record["accuracy"]) for record in done])
    return {
        "recipe": label,
        "n": statistics.n,
        "mean": statistics.mean,
        "sd": statistics.sd,
        "interval": statistics.interval,
        "num_failed": len(records) - len(done),
        "num_late": sum(bool(record.get("late")) for record in records),
        "wall_seconds": _mean(record.get("wall_seconds") for record in done),
        "images_per_second": _mean(record.get("images_per_second") for record in done),
    }


def _notes(config: BenchmarkConfig, last: Mapping[tuple[str, int], Record], num_complete: int) -> Iterator[str]:
    """Caveats: trials left out, failed or late, and differences between the trials."""
    records = list(last.values())
    started = {block for _, block in last}
    if left_out := len(started) - num_complete:
        blocks = "block is" if left_out == 1 else "blocks are"
        if len(config.recipes) > 1:
            yield f"{left_out} incomplete {blocks} kept in the log and left out of the paired test"
    for record in records:
        if "failed" in record:
            yield f"failed: {record['label']}, seed {record['seed']}: {record['failed']}"
        elif record.get("late"):
            seconds = _number(record["wall_seconds"])
            yield f"late: {record['label']}, seed {record['seed']}: {seconds:.1f} s of {config.trial_budget}"
    done = [record for record in records if "accuracy" in record]
    compared = {"commit": "commits of timebox", "versions": "versions", "device": "devices", "threads": "thread counts"}
    for name, words in compared.items():
        values = list(dict.fromkeys(_text(record.get(name)) for record in done))
        if len(values) > 1:
            yield f"the trials are of different {words}: {'; '.join(values)}"
    for variant in config.variants:
        yield from _differing_plans(variant.label, [r for r in done if r["label"] == variant.label])
    seen = max((int(_number(record.get("num_seen_in_training"))) for record in done), default=0)
    if seen:
        yield f"{seen} of the images scored are, pixel for pixel, among those trained on: the data hold some twice"


def _differing_plans(label: str, records: Sequence[Record]) -> Iterator[str]:
    """The fields of a recipe, planned anew in each trial, that differ between the trials."""
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
    """A trial in one line: the number done, recipe and seed, accuracy or failure, and the time that the rest takes."""
    count = f"{num_done:>{len(str(num_trials))}}/{num_trials}"
    which = f"{count}  {record['label']:<{label_width}}  seed {record['seed']}"
    left = f"  {format_duration(seconds_left)} left" if num_done < num_trials else ""
    if "failed" in record:
        return f"{which}  failed: {record['failed']}{left}"
    late = "  LATE" if record.get("late") else ""
    return f"{which}  {100 * _number(record['accuracy']):6.2f} %  {_number(record['wall_seconds']):.1f} s{late}{left}"


def _mean(values: Iterable[object]) -> float | None:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    return round(fmean(numbers), 2) if numbers else None


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return "unknown" if value is None else str(value)
