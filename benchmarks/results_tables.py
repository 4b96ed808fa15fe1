"""Write the tables of results in docs/results.md and README.md from records/: every figure is one that was recorded.

    python benchmarks/results_tables.py              # after a change to records/shown.toml
    python benchmarks/results_tables.py --check      # fails where a page says something else

records/shown.toml lists the rows; README.md shows those with ``readme = true``, and fewer columns. Each table stands
between two comments, `<!-- results:begin -->` and `<!-- results:end -->`.
"""

import argparse
import json
import statistics
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pages import PageError, replace_table

ROOT = Path(__file__).parents[1]
README, RESULTS, TABLE = "README.md", "docs/results.md", "results"
SHOWN = "shown.toml"
ROW_KEYS = {"record", "data", "recipe", "readme"}
Line = Mapping[str, object]


class RecordError(Exception):
    """A row that the records do not bear out."""


@dataclass(frozen=True)
class Row:
    """The cells of a result, and whether the README shows it.

    Attributes:
        folder: of the record, in records/.
        n: number of trainings, their standard deviation in points, and how many were late.
    """

    folder: str
    data: str
    recipe: str
    budget: str
    accuracy: str
    n: str
    seconds: str
    commit: str
    in_readme: bool

    def hardware(self, records: str) -> str:
        """A link to the record, whose folder is reached by ``records``."""
        return f"[{self.folder.rpartition('_')[2]}]({records}/{self.folder})"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="where the pages and records/ lie")
    given = parser.parse_args(argv)
    try:
        rows = read_rows(given.root / "records")
        wanted = {}
        for page, lines in ((README, readme_table(rows)), (RESULTS, full_table(rows))):
            text = (given.root / page).read_text(encoding="utf-8")
            wanted[page] = (text, replace_table(page, text, TABLE, lines))
    except (RecordError, PageError) as error:
        print(f"results_tables.py: error: {error}", file=sys.stderr)
        return 2
    differing = [page for page, (text, new) in wanted.items() if new != text]
    if given.check and differing:
        pages = " and ".join(differing)
        print(f"{pages} and records/ disagree: run python benchmarks/results_tables.py", file=sys.stderr)
        return 1
    for page in differing:
        (given.root / page).write_text(wanted[page][1], encoding="utf-8")
    return 0


def readme_table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table in the README."""
    head = ("data, training images", "budget", "test accuracy", "hardware")
    cells = [(row.data, row.budget, row.accuracy, row.hardware("records")) for row in rows if row.in_readme]
    return _table(head, cells)


def full_table(rows: Sequence[Row]) -> list[str]:
    """The lines of the table of all results."""
    head = ("data, training images", "recipe", "budget", "accuracy", "n, SD", "time taken", "hardware", "commit")
    return _table(
        head,
        [
            (row.data, row.recipe, row.budget, row.accuracy, row.n, row.seconds, row.hardware("../records"), row.commit)
            for row in rows
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def read_rows(records: Path) -> list[Row]:
    """The rows that shown.toml lists."""
    listed = tomllib.loads((records / SHOWN).read_text(encoding="utf-8")).get("row", [])
    return [_row(records, row) for row in listed]


def _row(records: Path, row: Mapping[str, str]) -> Row:
    if not {"record", "data"} <= set(row) <= ROW_KEYS:
        raise RecordError(f"{SHOWN}: a row has record, data, and perhaps recipe and readme, not {', '.join(row)}")
    folder = records / row["record"]
    lines = list(_lines(folder))
    recipes = list(dict.fromkeys(_recipe(line) for line in lines))
    recipe = row.get("recipe", recipes[0] if len(recipes) == 1 else None)
    if recipe not in recipes:
        raise RecordError(f"{SHOWN}: the row of {folder.name} must name its recipe, one of {', '.join(recipes)}")
    chosen = [line for line in lines if _recipe(line) == recipe]
    accuracies = [100 * _number(line["accuracy"]) for line in chosen]
    spread = f", {statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    num_late = sum(bool(line.get("late")) for line in chosen)
    late = f" ({num_late} late)" if num_late else ""
    images = _only(f"{_number(line['train_images']):,.0f}" for line in chosen)
    seconds = statistics.fmean(_number(line["wall_seconds"]) for line in chosen)
    return Row(
        folder=folder.name,
        data=f"{row['data']}, {images}",
        recipe=f"`{recipe}`",
        budget=_only(_duration(_number(line["budget_seconds"])) for line in chosen),
        accuracy=f"{statistics.fmean(accuracies):.1f} %",
        n=f"{len(accuracies)}{spread}{late}",
        seconds=f"{seconds:.0f} s",
        commit=_only(f"`{line['commit']}`" for line in chosen),
        in_readme=bool(row.get("readme")),
    )


def _lines(folder: Path) -> Iterator[Line]:
    """The trials of a record that reached something; of one that was done again the last."""
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise RecordError(f"{SHOWN}: {folder.name!r} is no record: it has no .jsonl file")
    last: dict[tuple[object, ...], Line] = {}
    for file in files:
        for number, text in enumerate(file.read_text(encoding="utf-8").splitlines()):
            line = json.loads(text)
            is_trial = "label" in line  # older records have a line for a run, and no labels
            last[(line["label"], line["block"]) if is_trial else (file, number)] = line
    yield from (line for line in last.values() if "accuracy" in line)


def _recipe(line: Line) -> str:
    recipe = line["recipe"]
    assert isinstance(recipe, Mapping)
    return str(line.get("label", recipe["name"]))


def _only(values: Iterator[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value


def _duration(seconds: float) -> str:
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"


if __name__ == "__main__":
    sys.exit(main())
