"""The HTML page of a search: result, top trials, history, importance of the fields, all trials."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from timebox.clock import format_duration
from timebox.reporting.html import chart, folded, page, paragraph, section, table
from timebox.reporting.search_charts import bars, parallel_coordinates, strips
from timebox.reporting.svg import Line, line_chart

# Trials in the table, the best ones.
MAX_ROWS = 60
START = "the starting recipe"
# CSS class of charts with their natural width.
CHART = "chart"

Values = Mapping[str, object]


def settings_text(settings: Sequence[object]) -> str:
    """Settings as text; the starting recipe has none."""
    return " ".join(map(str, settings)) or START


def tuning_page(
    summary: Values, trials: Sequence[Values], repeats: Sequence[Values], importance: Mapping[str, float]
) -> str:
    """The page, as one HTML file without external resources.

    Args:
        summary: content of summary.json.
        trials, repeats: lines of trials.jsonl.
        importance: share of the accuracy's variance due to each field, adding up to 1; empty where unknown.
    """
    return page(
        "Search · timebox",
        [
            f"<header><h1>Search for a recipe</h1><pre>{escape(str(summary['command']))}</pre></header>",
            section("outcome", "Result", *_outcome(summary)),
            section("leaders", "Top trials, with other seeds", *_leaders(summary)),
            section("history", "Trials", *_history(trials)),
            section("importance", "Importance of the fields", *_importance(importance)),
            section("fields", "Values tried", *_fields(trials)),
            section("trials", "All trials", folded(f"{len(trials)} trials", _table(trials, repeats))),
        ],
    )


def _outcome(summary: Values) -> Iterator[str]:
    final, winner = _mapping(summary["final"]), _mapping(summary["winner"])
    figures = [
        ("test accuracy", _percent(final.get("test_accuracy"))),
        ("trials", f"{summary['num_trials']:,}"),
        ("time", f"{format_duration(_number(summary['elapsed_seconds']))} of "
                 f"{format_duration(_number(summary['budget_seconds']))}"),
    ]  # fmt: skip
    shown = "".join(
        f'<div class="figure{" minor" if place else ""}"><b>{escape(value)}</b>{escape(name)}</div>'
        for place, (name, value) in enumerate(figures)
        if value
    )
    yield f'<div class="headline">{shown}</div>'
    yield paragraph(f"Trained: {_words(winner)}", "")
    check = summary["check"]
    assert isinstance(check, Sequence)
    if len(check) == 2:
        start, ahead = (_percent(_mapping(line)["accuracy"]) for line in check)
        yield paragraph(f"Checked on all training images: {ahead}, against {start} of {START}.")
    if not winner["settings"]:
        yield paragraph(f"Why: {summary['why']}.")


def _leaders(summary: Values) -> Iterator[str]:
    leaders = [_mapping(leader) for leader in _list(summary["leaders"])]
    if not leaders:
        yield paragraph("There was no time to train them again.")
        return
    rows = [(_name(leader), [_number(value) for value in _list(leader["accuracies"])]) for leader in leaders]
    yield chart("accuracy of each seed, and the mean", strips(rows, "accuracy of the top trials"), CHART)
    yield table(
        ("settings", "", "mean", "SD", "seeds"),
        [
            (
                settings_text(_list(leader["settings"])),
                _name(leader),
                _percent(leader["mean"]),
                "" if leader["sd"] is None else f"{100 * _number(leader['sd']):.2f}",
                str(len(_list(leader["accuracies"]))),
            )
            for leader in leaders
        ],
    )


def _history(trials: Sequence[Values]) -> Iterator[str]:
    scored = [trial for trial in trials if trial["accuracy"] is not None]
    if len(scored) < 2:
        return
    longest = max(_number(trial["budget_seconds"]) for trial in scored)
    lines = []
    for style, is_long in (("other", False), ("first", True)):
        points = [
            (_number(trial["trial"]), 100 * _number(trial["accuracy"]))
            for trial in scored
            if (trial["budget_seconds"] == longest) == is_long
        ]
        if points:
            lines.append(Line(points, style, dots=True, joined=False))
    yield chart(
        f"accuracy of each trial in %, those trained for {format_duration(longest)} in the first colour",
        line_chart(lines, "accuracy of the trials", "{:.0f}".format),
        CHART,
    )
    states = [str(trial["state"]) for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    yield paragraph(f"{len(trials)} trials: {counts}.")


def _importance(importance: Mapping[str, float]) -> Iterator[str]:
    if importance:
        ranked = sorted(importance.items(), key=lambda pair: -pair[1])
        yield chart(
            "share of the variance of the accuracy among the shortest trainings",
            bars(ranked, "importance of the fields"),
            CHART,
        )


def _fields(trials: Sequence[Values]) -> Iterator[str]:
    scored = [(_mapping(trial["params"]), _number(trial["accuracy"])) for trial in trials if trial["accuracy"]]
    names = list(scored[0][0]) if scored else []
    whole = [pair for pair in scored if list(pair[0]) == names]
    if len(names) > 1 and len(whole) > 1:
        drawing = parallel_coordinates(whole, names, "values of the fields, a line for each trial")
        yield f'<div class="scroll">{drawing}</div>'
        yield paragraph("A line for each trial, the stronger the better, the best in the second colour. Rates, batch "
                        "and other multiples are relative to the plan.")  # fmt: skip


def _table(trials: Sequence[Values], repeats: Sequence[Values]) -> str:
    ranked = sorted(trials, key=lambda trial: -_number(trial["accuracy"] or 0.0))[:MAX_ROWS]
    rows = [
        (
            settings_text(_list(trial["settings"])),
            str(trial["reason"] or trial["state"]),
            f"trial {trial['trial']}",
            _percent(trial["accuracy"]) or "–",
            "" if trial["budget_seconds"] is None else format_duration(_number(trial["budget_seconds"])),
        )
        for trial in ranked
    ]
    rows += [
        (
            settings_text(_list(line["settings"])),
            str(line.get("reason") or ""),
            f"{line['phase']} {line['repeat']}",
            _percent(line["accuracy"]) or "–",
            format_duration(_number(line["budget_seconds"])),
        )
        for line in repeats
    ]
    return table(("settings", "end", "", "accuracy", "budget"), rows, num_text_columns=2)


def _name(leader: Values) -> str:
    return "the starting recipe" if leader["trial"] is None else f"trial {leader['trial']}"


def _words(winner: Values) -> str:
    settings = _list(winner["settings"])
    return f"trial {winner['trial']}: {settings_text(settings)}" if settings else START


def _percent(value: object) -> str:
    return f"{value:.2%}" if isinstance(value, float) else ""


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def _mapping(value: object) -> Values:
    assert isinstance(value, Mapping)
    return value


def _list(value: object) -> Sequence[object]:
    assert isinstance(value, Sequence)
    return value
