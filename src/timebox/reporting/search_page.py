"""The HTML page of a recipe search: its result, best trials, all trials and hyperparameter importance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from timebox.clock import format_duration
from timebox.reporting.rendering import render
from timebox.reporting.search_charts import bar_chart, parallel_coordinates_chart, strip_plot
from timebox.reporting.svg import Chart, Line, line_chart

MAX_ROWS = 60
STARTING_RECIPE = "the starting recipe"

# An object read from JSON, whose fields are not checked here.
Values = Mapping[str, Any]


def settings_text(settings: Sequence[object]) -> str:
    """Settings as ``FIELD=VALUE`` separated by spaces; "the starting recipe" where there are none."""
    return " ".join(map(str, settings)) or STARTING_RECIPE


def tuning_page(
    summary: Values, trials: Sequence[Values], repeats: Sequence[Values], importance: Mapping[str, float]
) -> str:
    """The page of a search as one self-contained HTML file.

    Args:
        summary: the content of the search's summary.json.
        trials, repeats: the lines of its trials.jsonl.
        importance: share of the variance in accuracy that is due to each field, 0...1; empty where it is not known.
    """
    states = [trial["state"] for trial in trials]
    return render(
        "search.html.j2",
        summary=summary,
        final_settings=_final_settings(summary["winner"]),
        starting_recipe=STARTING_RECIPE,
        best_trials=_best_trials(summary["best_trials"]),
        best_rows=[_best_row(trial) for trial in summary["best_trials"]],
        num_trials=len(trials),
        states=", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        history=_history(trials),
        importance=_importance(importance),
        parallel_coordinates=_parallel_coordinates(trials),
        trial_rows=[*_trial_rows(trials), *_repeat_rows(repeats)],
    )


def _final_settings(winner: Values) -> str:
    text = settings_text(winner["settings"])
    return f"trial {winner['trial']}: {text}" if winner["settings"] else text


def _best_trials(trials: Sequence[Values]) -> Chart | None:
    if not trials:
        return None
    rows = [(_trial_name(trial), trial["accuracies"]) for trial in trials]
    return Chart("Accuracy of each seed (dots) and their mean (bar)", strip_plot(rows, "accuracy of the best trials"))


def _best_row(trial: Values) -> tuple[str, ...]:
    return (
        settings_text(trial["settings"]),
        _trial_name(trial),
        _percent(trial["mean"]),
        "" if trial["sd"] is None else f"{100 * trial['sd']:.2f}",
        str(len(trial["accuracies"])),
    )


def _trial_name(trial: Values) -> str:
    return "start" if trial["trial"] is None else f"trial {trial['trial']}"


def _history(trials: Sequence[Values]) -> Chart | None:
    """Accuracy by trial, in one colour for the longest budget and in another for shorter ones."""
    scored = [trial for trial in trials if trial["accuracy"] is not None]
    if len(scored) < 2:
        return None
    longest = max(trial["budget_seconds"] for trial in scored)
    points: dict[str, list[tuple[float, float]]] = {"other": [], "first": []}
    for trial in scored:
        style = "first" if trial["budget_seconds"] == longest else "other"
        points[style].append((trial["trial"], 100 * trial["accuracy"]))
    lines = [Line(dots, style, dots=True, joined=False) for style, dots in points.items() if dots]
    title = f"Accuracy of each trial in %; blue: trained for {format_duration(longest)}, orange: for less"
    return Chart(title, line_chart(lines, "accuracy of the trials", "{:.0f}".format))


def _importance(importance: Mapping[str, float]) -> Chart | None:
    if not importance:
        return None
    ranked = sorted(importance.items(), key=lambda pair: -pair[1])
    title = "Share of the variance in accuracy, over trials with the shortest budget"
    return Chart(title, bar_chart(ranked, "importance of the fields"))


def _parallel_coordinates(trials: Sequence[Values]) -> str:
    """The chart of the trials that have the same fields as the first one; empty for fewer than two."""
    scored = [(trial["params"], trial["accuracy"]) for trial in trials if trial["accuracy"]]
    names = list(scored[0][0]) if scored else []
    comparable = [pair for pair in scored if list(pair[0]) == names]
    if len(names) < 2 or len(comparable) < 2:
        return ""
    return parallel_coordinates_chart(comparable, names, "values of the fields, one line per trial")


def _trial_rows(trials: Sequence[Values]) -> Iterator[tuple[str, ...]]:
    for trial in sorted(trials, key=lambda trial: -(trial["accuracy"] or 0.0))[:MAX_ROWS]:
        yield (
            settings_text(trial["settings"]),
            str(trial["reason"] or trial["state"]),
            f"trial {trial['trial']}",
            _percent(trial["accuracy"]) or "–",
            "" if trial["budget_seconds"] is None else format_duration(trial["budget_seconds"]),
        )


def _repeat_rows(repeats: Sequence[Values]) -> Iterator[tuple[str, ...]]:
    for line in repeats:
        yield (
            settings_text(line["settings"]),
            str(line.get("reason") or ""),
            f"{line['phase']} {line['repeat']}",
            _percent(line["accuracy"]) or "–",
            format_duration(line["budget_seconds"]),
        )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"
