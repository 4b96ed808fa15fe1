"""Turn a finished benchmark into a record: a folder in records/ that holds all that a claim rests on.

    timebox benchmark cifar10 --recipe auto --recipe haet2021 --trial-budget 60s --score test
    python benchmarks/record.py runs/benchmark-cifar10-… --name "auto against haet2021" --note "What it shows."

The folder is called <date>_<data>_<trial budget>_<hardware> and holds the log of all trials, the resolved recipes, the
environment, and a README with the table. What was measured from a changed source is refused: nobody could repeat it.
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "records"
ABOUT, TRIALS, SUMMARY, RECIPES = "benchmark.json", "trials.jsonl", "summary.json", "recipes"
Values = Mapping[str, object]


class RefusedError(Exception):
    """A benchmark that makes no record."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmark", type=Path, help="the directory that `timebox benchmark` wrote")
    parser.add_argument("--name", required=True, help="what was measured: the title of the record")
    parser.add_argument("--note", default="", help="a sentence or two on what it shows")
    parser.add_argument("--folder", help="name of the folder (default: <date>_<data>_<trial budget>_<hardware>)")
    parser.add_argument("--allow-dirty", action="store_true", help="take what no single commit gives again")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where it goes (default: records/)")
    given = parser.parse_args(argv)
    try:
        print(make(given.benchmark, given.name, given.note, given.folder, given.allow_dirty, given.records))
    except RefusedError as error:
        print(f"record.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def make(benchmark: Path, name: str, note: str, folder: str | None, allow_dirty: bool, records: Path) -> Path:
    """Write the record of a benchmark; where it lies."""
    for file in (ABOUT, TRIALS, SUMMARY):
        if not (benchmark / file).is_file():
            raise RefusedError(
                f"{str(benchmark)!r} has no {file}: only a benchmark that came to its end makes a record"
            )
    about, summary = (json.loads((benchmark / file).read_text(encoding="utf-8")) for file in (ABOUT, SUMMARY))
    trials = [json.loads(line) for line in (benchmark / TRIALS).read_text(encoding="utf-8").splitlines()]
    if summary["stopped"] == "signal":
        raise RefusedError(f"{str(benchmark)!r} was stopped: finish it first, timebox benchmark --resume {benchmark}")
    commits = list(dict.fromkeys(str(trial.get("commit") or "unknown") for trial in trials))
    clean = len(commits) == 1 and re.fullmatch("[0-9a-f]+", commits[0])
    if not (clean or allow_dirty):
        raise RefusedError(
            f"measured from {', '.join(commits) or 'nothing'}: not one clean commit, so that nobody could repeat it; "
            "commit and measure again, or give --allow-dirty"
        )
    out = records / (folder or default_folder(about))
    if out.exists():
        raise RefusedError(f"{str(out)!r} exists: give another name with --folder")
    out.mkdir(parents=True)
    shutil.copy(benchmark / TRIALS, out / TRIALS)
    if (benchmark / RECIPES).is_dir():
        shutil.copytree(benchmark / RECIPES, out / RECIPES)
    environment = {"started": about["started"], "command": about["command"], **about["environment"]}
    environment["commit"] = ", ".join(commits)
    (out / "environment.json").write_text(json.dumps(environment, indent=2) + "\n", encoding="utf-8")
    (out / "README.md").write_text(readme(name, note, environment, summary, trials), encoding="utf-8")
    return out


def default_folder(about: Mapping[str, Mapping[str, str]]) -> str:
    """<date>_<data>_<trial budget>_<hardware>."""
    parts = (str(about["started"])[:10], about["data_name"], about["asked"]["trial_budget"])
    return "_".join((*(str(part) for part in parts), hardware(about["environment"])))


def hardware(environment: Values) -> str:
    """``2-core-cpu``, or a GPU's name with hyphens."""
    device = str(environment["device"])
    if device == "cpu":
        return f"{environment['threads']}-core-cpu"
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def readme(
    name: str, note: str, environment: Values, summary: Mapping[str, Sequence[Values]], trials: Sequence[Values]
) -> str:
    """The record in words and tables."""
    parts = [f"# {name}", note, f"```sh\n{environment['command']}\n```", "\n".join(figures(summary["recipes"]))]
    if summary["comparisons"]:
        parts.append("\n".join(comparisons(summary["comparisons"])))
        parts.append(claims(summary))
    parts.append(scored(trials))
    parts.append(measured_on(environment))
    parts.append("\n".join(f"- {remark}" for remark in summary["notes"]))
    return "\n\n".join(part for part in parts if part) + "\n"


def figures(recipes: Sequence[Values]) -> Iterator[str]:
    yield "| recipe | n | accuracy | SD | 95 % interval | time taken | images/s |"
    yield "|---|---|---|---|---|---|---|"
    for one in recipes:
        cells = (
            f"`{one['recipe']}`",
            str(one["n"]),
            f"{points(one['mean'])} %",
            points(one["sd"]),
            interval(one["interval"]),
            f"{points(one['wall_seconds'], 1, '.1f')} s",
            points(one["images_per_second"], 1, ",.0f"),
        )
        yield f"| {' | '.join(cells)} |"


def comparisons(found: Sequence[Values]) -> Iterator[str]:
    yield f"| against `{found[0]['against']}` | pairs | points | 95 % interval | p | |"
    yield "|---|---|---|---|---|---|"
    for one in found:
        p = one["p_corrected"]
        cells = (
            f"`{one['recipe']}`",
            str(one["num_pairs"]),
            points(one["mean_difference"], sign="+.2f"),
            interval(one["interval"], "+.2f"),
            "–" if p is None else f"{p:.2g}",
            str(one["verdict"]),
        )
        yield f"| {' | '.join(cells)} |"


def claims(summary: Mapping[str, object]) -> str:
    test = summary["test"]
    assert isinstance(test, dict)
    correction = f", corrected after {test['correction']}" if test["correction"] else ""
    return f"Fixed beforehand: a {test['name']}, paired by {test['paired_by']}, at {test['alpha']}{correction}."


def scored(trials: Sequence[Values]) -> str:
    done = [trial for trial in trials if "accuracy" in trial]
    if not done:
        return ""
    images, trained = (range_of(trial[key] for trial in done) for key in ("num_images", "train_images"))
    views = {
        "none": "in one view",
        "mirror": "with its mirror image",
        "shift": "in three views",
        "mirror_shift": "in six views",
    }
    of = {str(trial["label"]): views.get(str(trial["tta"]), str(trial["tta"])) for trial in done}
    each = "; ".join(f"{label}: {words}" for label, words in of.items())
    how = f"each as its recipe says ({each})" if len(set(of.values())) > 1 else f"each {next(iter(of.values()))}"
    return (
        f"Trained on {trained} images; scored afterwards, outside the trials' time, on the {images} images of "
        f"{done[0]['split']}, {how}. The time taken is that of the whole training command, seen from outside."
    )


def measured_on(environment: Values) -> str:
    memory, versions = environment["memory_bytes"], environment["versions"]
    assert isinstance(versions, dict)
    device = "no GPU" if environment["device"] == "cpu" else environment["device"]
    room = f", {memory / 2**30:.0f} GiB" if isinstance(memory, int) else ""
    software = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{environment['processor']}, {environment['cores']} cores{room}, {device}; {software}; "
        f"commit `{environment['commit']}`."
    )


def points(value: object, scale: float = 100, sign: str = ".2f") -> str:
    return format(value * scale, sign) if isinstance(value, int | float) else "–"


def interval(values: object, sign: str = ".2f") -> str:
    return " to ".join(points(value, sign=sign) for value in values) if isinstance(values, list) else "–"


def range_of(values: Iterator[object]) -> str:
    found = sorted({value for value in values if isinstance(value, int)})
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


if __name__ == "__main__":
    sys.exit(main())
