"""A run as a small HTML table for notebooks. Colours are those of the page around it, light or dark."""

from functools import cache
from typing import TYPE_CHECKING

from timebox.errors import RunError, one_line
from timebox.run.results.predictions import SPLITS, confident_mistakes, read_predictions
from timebox.run.results.text import SPLIT_TITLES, accuracies, summary_or_error, training_text

if TYPE_CHECKING:
    from jinja2 import Template

    from timebox.run.run import Run

NUM_MISTAKES = 5
MAX_LENGTH = 100  # characters of a name that are shown

# Names of classes and files come from the data: every value is escaped. No colours, and nothing that a page must fetch.
# The classes keep MathJax from typesetting a name with dollar signs.
_TEMPLATE = """\
<div class="tex2jax_ignore mathjax_ignore">
<table>
{% for name, value in facts %}
<tr><th style="text-align: left">{{ name }}</th><td style="text-align: left">{{ value }}</td></tr>
{% endfor %}
</table>
{% if title %}
<p>{{ title }}</p>
{% endif %}
{% if mistakes %}
<table>
<tr>{% for name in columns %}<th style="text-align: left">{{ name }}</th>{% endfor %}</tr>
{% for mistake in mistakes %}
<tr>{% for value in mistake %}<td style="text-align: left">{{ value }}</td>{% endfor %}</tr>
{% endfor %}
</table>
{% endif %}
</div>
"""


def to_html(run: "Run") -> str:
    """The HTML of a run in a notebook: its facts and, where it has predictions, its five most confident mistakes.

    Raises nothing for a damaged run: the page then says which file is damaged.
    """
    title, mistakes = _mistakes(run)
    columns = ("file", "label", "predicted", "probability")
    return _template().render(facts=_facts(run), title=title, columns=columns, mistakes=mistakes)


def _facts(run: "Run") -> list[tuple[str, str]]:
    """The rows of the first table, as (name, value)."""
    summary = summary_or_error(run)
    if isinstance(summary, str):
        results = [("accuracy", summary)]
    else:
        results = [*accuracies(summary, with_interval=True)] or [("accuracy", "not scored")]
        if training := training_text(summary):
            results.append(("time", training))
    classes, recipe = f"{len(run.class_names):,}", _start(run.recipe.name)
    return [("run", one_line(str(run.path))), *results, ("classes", classes), ("recipe", recipe)]


def _mistakes(run: "Run") -> tuple[str, list[tuple[str, ...]]]:
    """The title and the rows of the second table: mistakes on the test images, else on the validation images.

    Both are empty without predictions. Where these cannot be read, the title says why.
    """
    try:
        saved = read_predictions(run)
        split = next((name for name in SPLITS if saved and name in saved.split_names), None)
        if saved is None or split is None:
            return "", []
        of_split = saved.take(saved.splits == split)
        worst = confident_mistakes(run, of_split, NUM_MISTAKES)
        probabilities = worst.calibrated(run.temperature)[0].tolist()
    except RunError as error:
        return f"No mistakes are shown: {error}", []
    images = f"{SPLIT_TITLES[split]} images"
    if not len(worst):
        return f"No mistake on {len(of_split):,} {images}.", []
    names, rows = run.class_names, zip(worst.ids.tolist(), worst.labels, worst.predicted, probabilities, strict=True)
    return f"Most confident mistakes on the {images}:", [
        (_end(file), _start(names[label]), _start(names[predicted]), f"{100 * probability:.1f} %")
        for file, label, predicted, probability in rows
    ]


def _start(name: str) -> str:
    """A name in one line, without characters that change the direction of writing; of a long one its start."""
    return one_line(name if len(name) <= MAX_LENGTH else f"{name[:MAX_LENGTH]}…")


def _end(path: str) -> str:
    """As :func:`_start`, but of a long path its end, which has the name of the file."""
    return one_line(path if len(path) <= MAX_LENGTH else f"…{path[-MAX_LENGTH:]}")


@cache
def _template() -> "Template":
    from jinja2 import Environment, StrictUndefined  # on first use: most programs never show a run in a notebook

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE)
