"""A run in one line of text: accuracy, classes and time, and the words for them that the notebook's table shares."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from timebox.clock import format_duration
from timebox.errors import RunError
from timebox.evaluation.metrics import accuracy_interval
from timebox.run.files import SUMMARY

if TYPE_CHECKING:
    from timebox.run.run import Run

Summary = Mapping[str, object]
SPLIT_TITLES = {"test": "test", "val": "validation"}


def describe(run: "Run") -> str:
    """The text of ``repr(run)``, which never raises for a damaged run.

    ``Run('runs/first': test accuracy 93.1 % of 420 images, 10 classes, trained in 57s of 1m)``. The accuracy is that of
    the test images, else of the validation images.
    """
    classes = f"{len(run.class_names):,} classes"
    summary = summary_or_error(run)
    if isinstance(summary, str):
        parts = [f"its {SUMMARY} cannot be read", classes]
    elif not summary or summary.get("stopped"):
        parts = [classes, training_text(summary)]
    else:
        accuracy = next(accuracies(summary), ("", "not scored"))
        parts = [" ".join(filter(None, accuracy)), classes, training_text(summary)]
    return f"Run({str(run.path)!r}: {', '.join(filter(None, parts))})"


def summary_or_error(run: "Run") -> Summary | str:
    """The run's summary, empty where it has none; the message where it cannot be read."""
    try:
        return run.summary
    except RunError as error:
        return str(error)


def accuracies(summary: Summary, with_interval: bool = False) -> Iterator[tuple[str, str]]:
    """``("test accuracy", "93.1 % of 420 images")`` for each split that was scored, test first.

    Args:
        with_interval: whether the 95 % confidence interval follows.
    """
    for split, title in SPLIT_TITLES.items():
        share = number(summary, f"{split}_accuracy")
        num, total = (number(summary, f"{split}_images{suffix}") for suffix in ("", "_total"))
        if share is None:
            continue
        words = f"{100 * share:.1f} %"
        if num:
            words += f" of {num:,.0f} images" + (f" ({total:,.0f} in the split)" if total and total > num else "")
            if with_interval:
                low, high = accuracy_interval(round(share * num), int(num))
                words += f", 95 % interval {100 * low:.1f} to {100 * high:.1f} %"
        yield f"{title} accuracy", words


def training_text(summary: Summary) -> str:
    """How the training ended, and its time: ``trained in 57s of 1m``. Empty where the summary does not say."""
    if not summary:
        return f"unfinished: without {SUMMARY}"
    elapsed, budget = number(summary, "elapsed_seconds"), number(summary, "budget_seconds")
    time = "" if elapsed is None else format_duration(elapsed) + (f" of {format_duration(budget)}" if budget else "")
    late = ", late" if summary.get("late") is True else ""
    if summary.get("stopped"):
        return f"stopped{time and f' after {time}'} before it was scored{late}"
    steps = number(summary, "steps") if budget is None else None
    return f"trained in {time}{f', {steps:,.0f} steps' if steps else ''}{late}" if time else ""


def number(summary: Summary, key: str) -> float | None:
    """A number of the summary, None where it has none."""
    value = summary.get(key)
    return float(value) if isinstance(value, int | float) else None
