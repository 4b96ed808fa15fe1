"""Write the table of results in README.md from records/, so that every figure there is one that was recorded.

    python benchmarks/readme_table.py              # after a change to records/shown.toml
    python benchmarks/readme_table.py --check      # fails where README.md says something else

records/shown.toml lists the rows. The table stands between two comments, `<!-- records:begin -->` and
`<!-- records:end -->`.
"""

import argparse
import json
import statistics
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pages import PageError, replace_table

ROOT = Path(__file__).parents[1]
PAGE, TABLE = "README.md", "records"
SHOWN = "shown.toml"
HEAD = ("data, training images", "recipe", "budget", "accuracy", "n, SD", "time taken", "hardware", "commit")
ROW_KEYS = {"record", "data", "recipe"}
Line = Mapping[str, object]


class RecordError(Exception):
    """A row that the records do not bear out."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where README.md differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="where README.md and records/ lie")
    given = parser.parse_args(argv)
    readme = given.root / PAGE
    text = readme.read_text(encoding="utf-8")
    try:
        wanted = replace_table(PAGE, text, TABLE, table(given.root / "records"))
    except (RecordError, PageError) as error:
        print(f"readme_table.py: error: {error}", file=sys.stderr)
        return 2
    if given.check and wanted != text:
        print("README.md and records/ disagree: run python benchmarks/readme_table.py", file=sys.stderr)
        return 1
    if wanted != text:
        readme.write_text(wanted, encoding="utf-8")
    return 0


def table(records: Path) -> list[str]:
    """The lines of the table."""
    rows = tomllib.loads((records / SHOWN).read_text(encoding="utf-8")).get("row", [])
    return [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD), *(_row(records, row) for row in rows))]


def _row(records: Path, row: Mapping[str, str]) -> tuple[str, ...]:
    if not {"record", "data"} <= set(row) <= ROW_KEYS:
        raise RecordError(f"{SHOWN}: a row has record, data and perhaps recipe, not {', '.join(row)}")
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
    return (
        f"{row['data']}, {images}",
        f"`{recipe}`",
        _only(_duration(_number(line["budget_seconds"])) for line in chosen),
        f"{statistics.fmean(accuracies):.1f} %",
        f"{len(accuracies)}{spread}{late}",
        f"{seconds:.0f} s",
        f"[{folder.name.rpartition('_')[2]}](records/{folder.name})",
        _only(f"`{line['commit']}`" for line in chosen),
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
