"""`timebox evaluate`: prints the accuracy of a run on some data, class by class, and the confusion matrix."""

import argparse
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from timebox.cli import display
from timebox.cli.exit_status import DONE
from timebox.cli.formatting import PLAIN_WIDTH, facts, json_line, results_width, show, table, write
from timebox.cli.parsing import VerbHelp
from timebox.clock import format_duration
from timebox.configs.verbs import EvaluateConfig
from timebox.errors import one_line
from timebox.formatting import percent, plural

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from timebox.evaluation.metrics import ClassMetrics
    from timebox.pipelines.evaluate import Evaluation

MAX_MATRIX_CLASSES = 20
MAX_CLASS_ROWS = 40
MAX_CONFUSIONS = 10
MAX_BAD_FILES = 5


HELP = VerbHelp(
    EvaluateConfig,
    "score a run on data",
    "Accuracy, metrics for each class and the confusion matrix of a run on labelled images. Says how many of "
    "them the run was trained on.",
    ("timebox evaluate runs/demo digits", "timebox evaluate runs/photos more_photos/ --split all --json"),
)


def run(args: argparse.Namespace) -> int:
    config: EvaluateConfig = args.config
    with display.progress() as reporter:
        from timebox.pipelines.evaluate import evaluate

        evaluation = evaluate(**config.arguments(), reporter=reporter)
    if args.json:
        write(json_line(evaluation.as_dict()))
    else:
        show(*renderables(evaluation, results_width()))
    return DONE


def renderables(evaluation: "Evaluation", width: int) -> "Iterator[RenderableType]":
    """Tables and text that show an evaluation on a terminal of `width` columns."""
    yield facts(_metrics(evaluation))
    yield from _class_table(evaluation.classes)
    matrix = _matrix(evaluation) if len(evaluation.classes) <= MAX_MATRIX_CLASSES else None
    if matrix is not None and _columns_of(matrix) <= width:
        yield "  confusion matrix"
        yield matrix
    else:
        yield from _confusions(evaluation)
    for note in evaluation.notes:
        yield one_line(f"  note           {note}")
    for line in _bad_files(evaluation):
        yield one_line(f"  unreadable     {line}")
    if evaluation.num_seen_in_training:
        yield f"  WARNING        {seen_in_training(evaluation)}"


def _bad_files(evaluation: "Evaluation") -> Iterator[str]:
    bad = evaluation.bad_files
    if bad:
        yield f"{plural(len(bad), 'file')} left out"
    for file in bad[:MAX_BAD_FILES]:
        yield f"{file.path}: {file.reason}"
    if len(bad) > MAX_BAD_FILES:
        yield f"… and {len(bad) - MAX_BAD_FILES:,} more; --json has all"


def seen_in_training(evaluation: "Evaluation") -> str:
    """The warning on images that the run was trained on, with the accuracy on the others."""
    seen, total = evaluation.num_seen_in_training, evaluation.num_images
    if evaluation.accuracy_unseen is None:
        return f"this run was trained on all of these {total:,} images: the accuracy says nothing about new images"
    rest = f"on the other {plural(total - seen, 'image')} it is {percent(evaluation.accuracy_unseen)}"
    return f"this run was trained on {seen:,} of these {total:,} images, which count in the accuracy: {rest}"


def _metrics(evaluation: "Evaluation") -> Iterator[tuple[str, str]]:
    total, scored = evaluation.num_images_total, evaluation.num_images
    correct = evaluation.num_correct
    of = f", of {total:,} in all" if total != scored else ""
    yield "accuracy", f"{percent(evaluation.accuracy)}   {correct:,} of {plural(scored, 'image')}{of}"
    if scored:
        from timebox.evaluation.metrics import accuracy_interval

        low, high = accuracy_interval(correct, scored)
        yield "95 % interval", f"{percent(low)} to {percent(high)}"
        yield (
            "by class",
            f"balanced accuracy {percent(evaluation.balanced_accuracy)}, macro precision "
            f"{percent(evaluation.macro_precision)}, macro F1 {percent(evaluation.macro_f1)}",
        )
    yield "data", f"{evaluation.data}, split {evaluation.split}"
    yield "run", evaluation.run
    yield "time", f"{format_duration(evaluation.seconds)}, test-time augmentation: {evaluation.tta}"


def _class_table(classes: "tuple[ClassMetrics, ...]") -> "Iterator[RenderableType]":
    if len(classes) > MAX_CLASS_ROWS:
        yield f"\n  the {MAX_CLASS_ROWS} weakest of {len(classes):,} classes (--json has all)"
        weakest = sorted(classes, key=lambda one: one.f1 if one.num_images else math.inf)
        classes = tuple(weakest[:MAX_CLASS_ROWS])
    rows = [
        (one.name, f"{one.num_images:,}", percent(one.precision, 1), percent(one.recall, 1), percent(one.f1, 1))
        for one in classes
    ]
    yield table(("class", "images", "precision", "recall", "f1"), rows)


def _matrix(evaluation: "Evaluation") -> "Table":
    from timebox.evaluation.metrics import confusion_matrix

    names = [one.name for one in evaluation.classes]
    counts = confusion_matrix(evaluation.confusion_pairs, len(names)).tolist()
    rows = [
        (f"{index} {name}", *(f"{count:,}" if count else "·" for count in counts[index]))
        for index, name in enumerate(names)
    ]
    return table(("true, by predicted", *map(str, range(len(names)))), rows)


def _columns_of(matrix: "Table") -> int:
    from rich.console import Console

    return Console(width=PLAIN_WIDTH).measure(matrix).maximum + 1


def _confusions(evaluation: "Evaluation") -> "Iterator[RenderableType]":
    names = [one.name for one in evaluation.classes]
    confusions = sorted(
        (-count, true, predicted) for true, predicted, count in evaluation.confusion_pairs.tolist() if true != predicted
    )
    if confusions:
        sizes = [one.num_images for one in evaluation.classes]
        rows = [
            (f"{names[true]} → {names[predicted]}", f"{-count:,}", percent(-count / sizes[true], 1))
            for count, true, predicted in confusions[:MAX_CONFUSIONS]
        ]
        yield "  most frequent confusions"
        yield table(("true → predicted", "images", "of the class"), rows)
