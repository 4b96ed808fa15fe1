"""The HTML page that compares several runs, and its tables, which ``timebox compare`` prints too."""

from collections.abc import Callable, Iterator, Sequence

from timebox.clock import format_duration
from timebox.reporting.rendering import render
from timebox.reporting.run_data import RunData
from timebox.reporting.svg import Chart, Line, line_chart

MISSING = "–"


def comparison_rows(runs: Sequence[RunData]) -> list[tuple[str, ...]]:
    """Rows of a quantity's name and its value in each run, without quantities that no run has."""
    rows = [(name, *(show(run) for run in runs)) for name, show in _ROWS]
    return [row for row in rows if set(row[1:]) != {MISSING}]


def differing_fields(runs: Sequence[RunData]) -> list[tuple[str, ...]]:
    """Rows of a recipe field's name and its value in each run, for the fields in which the recipes differ."""
    names = dict.fromkeys(name for run in runs for name in run.mapping("recipe"))
    rows = [(name, *(str(run.mapping("recipe").get(name, MISSING)) for run in runs)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def comparison_page(runs: Sequence[RunData]) -> str:
    """The comparison as one self-contained HTML file."""
    return render(
        "comparison.html.j2",
        names=[run.name for run in runs],
        rows=comparison_rows(runs),
        curves=[(run.name, list(_curves(run))) for run in runs],
        differing_fields=differing_fields(runs),
    )


def _curves(run: RunData) -> Iterator[Chart]:
    for key, title in (("loss", "Training loss by step"), ("lr", "Learning rate by step")):
        if len(points := run.curve(key)) > 1:
            yield Chart(title, line_chart([Line(points, "first")], title, "{:g}".format, from_zero=key == "lr"))


def _accuracy(split: str) -> Callable[[RunData], str]:
    def show(run: RunData) -> str:
        predictions = next((one for one in run.predictions if one.split == split), None)
        if predictions is not None:
            low, high = predictions.interval
            return f"{predictions.accuracy:.2%} ({low:.1%} to {high:.1%})"
        value = run.number(f"{split}_accuracy")
        return MISSING if value is None else f"{value:.2%}"

    return show


def _number(key: str, show: Callable[[float], str]) -> Callable[[RunData], str]:
    return lambda run: MISSING if (value := run.number(key)) is None else show(value)


def _text(key: str) -> Callable[[RunData], str]:
    return lambda run: run.text(key) or MISSING


def _name(key: str) -> Callable[[RunData], str]:
    return lambda run: str(run.mapping(key).get("name", MISSING))


_ROWS: tuple[tuple[str, Callable[[RunData], str]], ...] = (
    ("test accuracy", _accuracy("test")),
    ("val accuracy", _accuracy("val")),
    ("data", _name("data")),
    ("training images", _number("train_images", "{:,.0f}".format)),
    ("budget", _number("budget_seconds", format_duration)),
    ("time", _number("elapsed_seconds", format_duration)),
    ("steps", _number("steps", "{:,.0f}".format)),
    ("epochs", _number("epochs", "{:,.1f}".format)),
    ("images/s", _number("images_per_second", "{:,.0f}".format)),
    ("recipe", _name("recipe")),
    ("precision", _text("precision")),
    ("device", _text("device")),
    ("seed", _text("seed")),
)
