"""Runs side by side."""

from collections.abc import Callable, Iterator, Sequence
from html import escape

from timebox.clock import format_duration
from timebox.reporting.html import chart, page, section, table
from timebox.reporting.run_data import RunFacts, Scored
from timebox.reporting.svg import Line, line_chart

MISSING = "–"


def comparison_rows(runs: Sequence[RunFacts]) -> list[tuple[str, ...]]:
    """What is compared, a row each: its name, then its value for every run. Rows without a value are left out."""
    rows = [(name, *(show(run) for run in runs)) for name, show in _ROWS]
    return [row for row in rows if set(row[1:]) != {MISSING}]


def differing_fields(runs: Sequence[RunFacts]) -> list[tuple[str, ...]]:
    """The fields of the recipes in which the runs differ."""
    names = dict.fromkeys(name for run in runs for name in run.mapping("recipe"))
    rows = [(name, *(str(run.mapping("recipe").get(name, MISSING)) for run in runs)) for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def comparison_page(runs: Sequence[RunFacts]) -> str:
    """The page, HTML in one file."""
    headers = ("", *(run.name for run in runs))
    return page(
        "Runs compared · timebox",
        [
            f"<header><h1>{escape(' · '.join(run.name for run in runs))}</h1></header>",
            section("figures", "What they reached", table(headers, comparison_rows(runs))),
            section("curves", "Training", *_curves(runs)),
            section("recipes", "Where their recipes differ", _recipes(runs, headers)),
        ],
    )


def _recipes(runs: Sequence[RunFacts], headers: Sequence[str]) -> str:
    rows = differing_fields(runs)
    return table(headers, rows) if rows else '<p class="soft">Nowhere.</p>'


def _curves(runs: Sequence[RunFacts]) -> Iterator[str]:
    for run in runs:
        charts = [
            chart(title, line_chart([Line(points, "first")], title, "{:g}".format, from_zero=key == "lr"))
            for key, title in (("loss", "Loss"), ("lr", "Learning rate"))
            if len(points := run.curve(key)) > 1
        ]
        if charts:
            yield f'<h3>{escape(run.name)}</h3><div class="grid">{"".join(charts)}</div>'


def _accuracy(split: str) -> Callable[[RunFacts], str]:
    def show(run: RunFacts) -> str:
        scored: Scored | None = next((one for one in run.scores if one.split == split), None)
        if scored is not None:
            low, high = scored.interval
            return f"{scored.accuracy:.2%} ({low:.1%} to {high:.1%})"
        value = run.number(f"{split}_accuracy")
        return MISSING if value is None else f"{value:.2%}"

    return show


def _number(key: str, form: str) -> Callable[[RunFacts], str]:
    return lambda run: MISSING if (value := run.number(key)) is None else form.format(value)


def _text(key: str) -> Callable[[RunFacts], str]:
    return lambda run: run.text(key) or MISSING


def _duration(key: str) -> Callable[[RunFacts], str]:
    return lambda run: MISSING if (value := run.number(key)) is None else format_duration(value)


_ROWS: tuple[tuple[str, Callable[[RunFacts], str]], ...] = (
    ("test accuracy", _accuracy("test")),
    ("val accuracy", _accuracy("val")),
    ("data", lambda run: str(run.mapping("data").get("name", MISSING))),
    ("training images", _number("train_images", "{:,.0f}")),
    ("budget", _duration("budget_seconds")),
    ("time", _duration("elapsed_seconds")),
    ("steps", _number("steps", "{:,.0f}")),
    ("epochs", _number("epochs", "{:,.1f}")),
    ("images a second", _number("images_per_second", "{:,.0f}")),
    ("recipe", lambda run: str(run.mapping("recipe").get("name", MISSING))),
    ("precision", _text("precision")),
    ("device", _text("device")),
    ("seed", _text("seed")),
)
