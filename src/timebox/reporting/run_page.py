"""The report of one run: what it reached, where the time went, what it gets wrong."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np

from timebox.clock import format_duration
from timebox.evaluation.calibration import apply_temperature, expected_calibration_error, fit_temperature
from timebox.evaluation.metrics import per_class_metrics
from timebox.reporting.html import chart, fields, folded, items, page, paragraph, picture, section, table
from timebox.reporting.run_data import Example, RunFacts, Scored
from timebox.reporting.svg import Line, heat_map, line_chart, reliability, timeline

# Classes, confusions and files shown at once; the rest is folded away.
MOST_CLASSES, MOST_CONFUSIONS, MOST_FILES = 40, 10, 20
LARGEST_MATRIX = 200
# The matrix of more classes would not be worth its memory.
MOST_COUNTED_CLASSES = 2000
SPLIT_NAMES = {"test": "test images", "val": "validation images"}


def report_page(facts: RunFacts) -> str:
    """The page, HTML in one file."""
    return page(
        f"{facts.name} · timebox",
        [
            _header(facts),
            section("time", "Where the time went", *_time(facts)),
            section("training", "Training", *_training(facts)),
            section("plan", "The plan, and why", items(facts.texts("plan"))),
            *(_split_sections(facts, facts.scores[0]) if facts.scores else [_unscored()]),
            section("mistakes", "The most confident mistakes", _thumbnails(facts, "mistake")),
            section("unsure", "Right, but hardly", _thumbnails(facts, "unsure")),
            section("augmentation", "What the network is shown in training", _thumbnails(facts, "augmented")),
            section("data", "Data", *_data(facts)),
            section("details", "Recipe, environment, command", *_details(facts)),
        ],
    )


def _header(facts: RunFacts) -> str:
    figures = [_figure(scored, minor=position > 0) for position, scored in enumerate(facts.scores)]
    elapsed, budget = facts.number("elapsed_seconds"), facts.number("budget_seconds")
    if elapsed is not None:
        of = f"of {format_duration(budget)}" if budget else "no deadline"
        late = ' · <span class="late">late</span>' if facts.summary.get("late") else ""
        figures.append(f'<div class="figure minor"><b>{format_duration(elapsed)}</b>{of}{late}</div>')
    if (images := facts.number("train_images")) is not None:
        classes = facts.number("num_classes") or len(facts.class_names)
        figures.append(f'<div class="figure minor"><b>{images:,.0f}</b>training images, {classes:.0f} classes</div>')
    data = facts.mapping("data").get("name", "")
    under = " · ".join(text for text in (str(data), facts.text("device"), facts.text("precision")) if text)
    return (
        f'<header><h1>{escape(facts.name)}</h1><p class="soft">{escape(under)}</p></header>'
        f'<section id="headline"><div class="headline">{"".join(figures)}</div></section>'
    )


def _figure(scored: Scored, minor: bool) -> str:
    low, high = scored.interval
    size = " minor" if minor else ""
    return (
        f'<div class="figure{size}"><b>{scored.accuracy:.1%}</b>of {len(scored.labels):,} {SPLIT_NAMES[scored.split]}'
        f'<br><span class="soft">95 % interval {low:.1%} to {high:.1%}</span></div>'
    )


def _time(facts: RunFacts) -> Iterator[str]:
    phases = {name: seconds for name, seconds in facts.mapping("phases").items() if isinstance(seconds, int | float)}
    parts = [(name, seconds) for name, seconds in phases.items() if seconds >= 0.005]
    if not parts:
        return
    total = max(facts.number("budget_seconds") or 0.0, sum(seconds for _, seconds in parts))
    yield timeline(parts, total, "where the time went")
    legend = [
        f'<span><i class="part{number % 8}"></i>{escape(name)} {seconds:.1f} s</span>'
        for number, (name, seconds) in enumerate(parts)
    ]
    if (left := total - sum(seconds for _, seconds in parts)) > 0.05:
        legend.append(f'<span><i class="empty"></i>not used {left:.1f} s</span>')
    yield f'<div class="legend">{"".join(legend)}</div>'


def _training(facts: RunFacts) -> Iterator[str]:
    steps, epochs, speed = (facts.number(name) for name in ("steps", "epochs", "images_per_second"))
    if steps is not None and epochs is not None and speed is not None:
        yield paragraph(f"{steps:,.0f} steps, {epochs:,.1f} epochs, {speed:,.0f} images a second.")
    charts = []
    for key, title, show in (
        ("loss", "Loss, by step", "{:g}"),
        ("val_accuracy", "Accuracy on validation images, by step", "{:.0%}"),
        ("lr", "Learning rate", "{:g}"),
        ("momentum", "Momentum", "{:g}"),
    ):
        points = facts.curve(key)
        if len(points) > 1 and (key == "loss" or len({value for _, value in points}) > 1):
            line = Line(points, "first" if key in ("loss", "lr") else "other", dots=key == "val_accuracy")
            charts.append(chart(title, line_chart([line], title, show.format, from_zero=key == "lr")))
    if charts:
        yield f'<div class="grid">{"".join(charts)}</div>'
    if events := facts.texts("events"):
        yield "<h3>What happened on the way</h3>" + items(events)


def _unscored() -> str:
    return section("scores", "Accuracy", paragraph("Nothing was scored: there were no images held out, or no time."))


def _split_sections(facts: RunFacts, scored: Scored) -> Iterator[str]:
    """What there is to say of the predictions for a split."""
    names, on = facts.class_names, SPLIT_NAMES[scored.split]
    if len(names) > MOST_COUNTED_CLASSES:
        yield section("classes", "Class by class", paragraph(f"{len(names):,} classes are too many to be shown."))
        yield section("calibration", f"Calibration, {on}", *_calibration(facts, scored))
        return
    drawn = len(names) <= LARGEST_MATRIX
    matrix = chart("", heat_map(scored.confusion, names, "confusion matrix"), "matrix") if drawn else ""
    yield section(
        "confusion",
        f"Confusion, {on}",
        matrix,
        paragraph(
            "Rows are the true classes, columns the predicted ones; the stronger a cell, the larger its row's share."
        ),
        _confusions(scored, names),
    )
    yield section("classes", f"Class by class, {on}", *_classes(scored, names))
    yield section("calibration", f"Calibration, {on}", *_calibration(facts, scored))


def _confusions(scored: Scored, names: Sequence[str]) -> str:
    off = scored.confusion - np.diag(scored.confusion.diagonal())
    order = np.argsort(off, axis=None)[::-1][:MOST_CONFUSIONS]
    pairs = [np.unravel_index(index, off.shape) for index in order]
    actual = scored.confusion.sum(1)
    rows = [(names[i], names[j], f"{off[i, j]:,}", f"{off[i, j] / actual[i]:.1%}") for i, j in pairs if off[i, j]]
    if not rows:
        return paragraph("Not one image is taken for another class.")
    headers = ("true class", "taken for", "images", "of its class")
    return "<h3>Most often confused</h3>" + table(headers, rows, 2)


def _classes(scored: Scored, names: Sequence[str]) -> Iterator[str]:
    means = scored.macro_averages()
    yield paragraph(
        f"Balanced accuracy (the mean recall) {means['balanced_accuracy']:.1%}, macro precision "
        f"{means['macro_precision']:.1%}, macro F1 {means['macro_f1']:.1%}."
    )
    figures = sorted(per_class_metrics(names, scored.confusion), key=lambda one: one.recall)
    rows = [
        (one.name, f"{one.num_images:,}", f"{one.precision:.1%}", f"{one.recall:.1%}", f"{one.f1:.1%}")
        for one in figures
        if one.num_images
    ]
    headers = ("class", "images", "precision", "recall", "F1")
    yield table(headers, rows[:MOST_CLASSES])
    if len(rows) > MOST_CLASSES:
        yield folded(f"{len(rows) - MOST_CLASSES} more, with higher recall", table(headers, rows[MOST_CLASSES:]))


def _calibration(facts: RunFacts, scored: Scored) -> Iterator[str]:
    """Before and after: with the temperature of the validation images; those themselves are cross-fitted."""
    temperature = facts.number("temperature")
    before = expected_calibration_error(scored.probabilities, scored.labels)
    if scored.split == "test" and temperature is not None:
        after = apply_temperature(scored.probabilities, temperature)
        how = f"with the temperature {temperature:g}, fitted on the validation images"
    elif scored.split == "val":
        after = _cross_fitted(scored)
        how = f"with a temperature fitted on the other half of them ({temperature or 1.0:g} on all)"
    else:
        after, how = scored.probabilities, "not calibrated, as there were no validation images to fit a temperature on"
    error = expected_calibration_error(after, scored.labels)
    yield paragraph(
        f"Expected calibration error {before:.1%} as trained, {error:.1%} {how}. A bar shows how many are right among "
        "the images for which the model is so sure; on the dashed line it is as often right as it says."
    )
    right = scored.predicted == scored.labels
    charts = [
        chart(title, reliability(values.max(1).astype(np.float64), right, title), "square")
        for title, values in (("As trained", scored.probabilities), ("Calibrated", after))
    ]
    yield f'<div class="grid">{"".join(charts)}</div>'


def _cross_fitted(scored: Scored) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Each half calibrated with the temperature of the other."""
    after = scored.probabilities.copy()
    halves = np.arange(len(after)) % 2 == 0
    for one, other in ((halves, ~halves), (~halves, halves)):
        temperature = fit_temperature(scored.probabilities[other], scored.labels[other])
        after[one] = apply_temperature(scored.probabilities[one], temperature)
    return after


def _thumbnails(facts: RunFacts, kind: str) -> str:
    shown = [_thumbnail(example, facts.class_names) for example in facts.examples if example.kind == kind]
    return f'<div class="thumbs">{"".join(shown)}</div>' if shown else ""


def _thumbnail(example: Example, names: Sequence[str]) -> str:
    label, predicted = escape(names[example.label]), escape(names[example.predicted])
    if example.kind == "augmented":
        return picture(example.image, label, example.name)
    sure = f"{example.confidence:.0%} sure"
    caption = f"<b>{predicted}</b>, {sure}" + (f"<br>is {label}" if label != predicted else "")
    return picture(example.image, caption, f"{example.name}: {names[example.label]}")


def _data(facts: RunFacts) -> Iterator[str]:
    data = facts.mapping("data")
    if data:
        yield paragraph(f"{data.get('name')}: {data.get('format')}. {_sentence(str(data.get('why', '')))}".strip())
    yield items(facts.texts("notes"))
    bad = facts.summary.get("bad_files")
    files = [file for file in bad if isinstance(file, Mapping)] if isinstance(bad, list) else []
    if files:
        rows = [(str(file.get("path")), str(file.get("reason"))) for file in files]
        listed = table(("file", "why it was left out"), rows[:MOST_FILES], 2)
        yield f"<h3>{len(files):,} unreadable {'file' if len(files) == 1 else 'files'} left out</h3>{listed}"
        if len(files) > MOST_FILES:
            more = table(("file", "why"), rows[MOST_FILES:], 2)
            yield folded(f"{len(files) - MOST_FILES:,} more", more)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def _details(facts: RunFacts) -> Iterator[str]:
    if command := facts.text("command"):
        yield f"<pre>{escape(command)}</pre>"
    wanted = ("device", "threads", "precision", "seed")
    environment = {name: facts.summary[name] for name in wanted if facts.summary.get(name) is not None}
    columns = [
        f"<div><h3>Environment</h3>{fields({**environment, **facts.mapping('versions')})}</div>",
        f"<div><h3>Recipe</h3>{folded('every field', fields(facts.mapping('recipe')))}</div>",
    ]
    yield f'<div class="grid" style="margin-top:14px">{"".join(columns)}</div>'
