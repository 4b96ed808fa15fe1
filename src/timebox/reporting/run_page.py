"""The HTML report of one run: accuracy, time, training curves, confusion matrix, calibration, example images, data."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timebox.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from timebox.evaluation.metrics import confusion_matrix, macro_averages, per_class_metrics
from timebox.reporting.image_browser import ImageBrowser, image_browser
from timebox.reporting.rendering import render
from timebox.reporting.run_data import RunData, SplitPredictions
from timebox.reporting.svg import Chart, Line, confusion_heat_map, line_chart, reliability_diagram, timeline
from timebox.run.summary import uncalibrated_reason

# Rows shown at once; further classes and files are inside a <details> element.
MAX_CLASSES, MAX_CONFUSIONS, MAX_FILES = 40, 10, 20
MAX_DRAWN_CLASSES = 200
# Rows of classes in the <details> element: a page with more is slow to open. `timebox evaluate --json` has all of them.
MAX_HIDDEN_CLASSES = 1000
MIN_PHASE_SECONDS = 0.005


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error and reliability diagrams.

    Attributes:
        error_before, error_after: 0...1, without and with temperature scaling; the second is None where the run has no
            temperature.
        method: how the temperature was fitted, a phrase that follows the second error.
        reason: why none was fitted; None where one was.
    """

    error_before: float
    error_after: float | None
    method: str
    reason: str | None
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Confusion:
    """Images of one class that are predicted as another.

    Attributes:
        label, predicted: class indices.
        num_images: of the class ``label`` that are predicted as ``predicted``.
        share: of the images of the class, 0...1.
    """

    label: int
    predicted: int
    num_images: int
    share: float


@dataclass(frozen=True)
class Evaluation:
    """All that the report shows of the predictions for one split.

    Attributes:
        classes: rows of class name, images, precision, recall and F1, lowest recall first, of at most 1,040 classes.
        num_classes: classes that have scored images.
        confusions: most frequent first.
        matrix: the confusion matrix as SVG, empty where there are too many classes to draw.
        averages: see :func:`timebox.evaluation.metrics.macro_averages`.
        browser: of the images.
    """

    predictions: SplitPredictions
    classes: Sequence[tuple[str, ...]]
    num_classes: int
    confusions: Sequence[Confusion]
    matrix: str
    averages: Mapping[str, float]
    calibration: Calibration
    browser: ImageBrowser


def report_page(run: RunData) -> str:
    """The report as one self-contained HTML file."""
    phases = [
        (name, seconds)
        for name, seconds in run.mapping("phases").items()
        if isinstance(seconds, int | float) and seconds >= MIN_PHASE_SECONDS
    ]
    used_seconds = sum(seconds for _, seconds in phases)
    total_seconds = max(run.number("budget_seconds") or 0.0, used_seconds)
    environment = {name: run.text(name) for name in ("device", "threads", "precision", "seed") if run.text(name)}
    return render(
        "run.html.j2",
        run=run,
        phases=phases,
        timeline=timeline(phases, total_seconds, "where the time went") if phases else "",
        unused_seconds=total_seconds - used_seconds,
        curves=list(_curves(run)),
        evaluation=_evaluation(run, run.predictions[0]) if run.predictions else None,
        forecast=_numbers(run, "forecast", ("expected", "low", "high")),
        blend=_numbers(run, "blend", ("share", "network_val_accuracy", "pretrained_val_accuracy")),
        bad_files=_bad_files(run),
        environment={**environment, **run.mapping("versions")},
        max_classes=MAX_CLASSES,
        max_files=MAX_FILES,
        num_bad_files=int(run.number("num_bad_files") or 0),
    )


def _numbers(run: RunData, key: str, names: Sequence[str]) -> dict[str, float]:
    """These numbers of an object of the summary; empty where one is missing, as without a forecast or a blend."""
    values = run.mapping(key)
    numbers = {name: float(value) for name in names if isinstance(value := values.get(name), int | float)}
    return numbers if len(numbers) == len(names) else {}


def _curves(run: RunData) -> Iterator[Chart]:
    for key, title, form in (
        ("loss", "Training loss by step", "{:g}"),
        ("val_accuracy", "Validation accuracy by step", "{:.0%}"),
        ("lr", "Learning rate by step", "{:g}"),
        ("momentum", "Momentum by step", "{:g}"),
    ):
        points = run.curve(key)
        if len(points) > 1 and (key == "loss" or len({value for _, value in points}) > 1):
            line = Line(points, "first" if key in ("loss", "lr") else "other", dots=key == "val_accuracy")
            yield Chart(title, line_chart([line], title, form.format, from_zero=key == "lr"))


def _evaluation(run: RunData, predictions: SplitPredictions) -> Evaluation:
    names, calibration = run.class_names, _calibration(run, predictions)
    pairs, matrix = predictions.confusion_pairs, ""
    if len(names) <= MAX_DRAWN_CLASSES:
        matrix = confusion_heat_map(confusion_matrix(pairs, len(names)), names, "confusion matrix")
    metrics = [one for one in per_class_metrics(names, pairs) if one.num_images]
    classes = [
        (one.name, f"{one.num_images:,}", f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}")
        for one in sorted(metrics, key=lambda one: one.recall)[: MAX_CLASSES + MAX_HIDDEN_CLASSES]
    ]
    return Evaluation(
        predictions,
        classes,
        len(metrics),
        _confusions(pairs, len(names)),
        matrix,
        macro_averages(metrics),
        calibration,
        image_browser(run, predictions),
    )


def _confusions(pairs: NDArray[np.int64], num_classes: int) -> list[Confusion]:
    totals = np.bincount(pairs[:, 0], weights=pairs[:, 2], minlength=num_classes)
    errors = pairs[pairs[:, 0] != pairs[:, 1]]
    most_frequent = errors[np.argsort(-errors[:, 2], kind="stable")[:MAX_CONFUSIONS]]
    return [
        Confusion(label, predicted, count, count / totals[label]) for label, predicted, count in most_frequent.tolist()
    ]


def _calibration(run: RunData, predictions: SplitPredictions) -> Calibration:
    """Calibration with and without the run's temperature, which was fitted on the validation images.

    On the validation images themselves, two-fold cross-fitting keeps the error from being too low.
    """
    temperature, before = run.number("temperature"), predictions.probabilities
    reason = uncalibrated_reason(run.summary)
    if predictions.split == "val":
        after = _cross_fit_temperature(predictions)
        method = f"with a temperature fitted on the other half of them ({temperature or 1.0:g} on all)"
    elif temperature is not None and reason is None:
        after = apply_temperature(before, temperature)
        method = f"with the temperature {temperature:g}, fitted on the validation images"
    else:
        after, method = None, ""
    correct = predictions.predicted == predictions.labels
    titles = {"Uncalibrated": before} if after is None else {"Uncalibrated": before, "Calibrated": after}
    return Calibration(
        expected_calibration_error(before, predictions.labels),
        None if after is None else expected_calibration_error(after, predictions.labels),
        method,
        reason,
        [
            Chart(title, reliability_diagram(probabilities.max(1).astype(np.float64), correct, title))
            for title, probabilities in titles.items()
        ],
    )


def _cross_fit_temperature(predictions: SplitPredictions) -> NDArray[np.float32]:
    """Calibrated probabilities (N, num_classes): each half with the temperature fitted on the other half."""
    calibrated = predictions.probabilities.copy()
    is_even = np.arange(len(calibrated)) % 2 == 0
    for fold in (is_even, ~is_even):
        temperature = fit_temperature(predictions.probabilities[~fold], predictions.labels[~fold])
        calibrated[fold] = apply_temperature(predictions.probabilities[fold], temperature)
    return calibrated


def _bad_files(run: RunData) -> list[tuple[str, str]]:
    bad_files = run.summary.get("bad_files")
    entries = bad_files if isinstance(bad_files, list) else []
    return [(str(entry.get("path")), str(entry.get("reason"))) for entry in entries if isinstance(entry, Mapping)]
