"""Where `auto` stands against the built-in recipes, and the epochs from which its rungs pay, from measured cells.

    python benchmarks/fit_auto.py            # writes the tables in docs/auto.md, and prints the fit
    python benchmarks/fit_auto.py --check    # fails where docs/auto.md or planning/auto.py say otherwise

The cells lie in records/: the trials of `auto`, of the built-in recipes, and of the rungs below and above the one that
`auto` took, as `auto_cells.py` wrote them. The fit looks for the epochs with which choosing among the rungs that were
measured loses least, on average over the tasks and over speeds that are read too low, right and too high; it is checked
by leaving out each task in turn.
"""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from auto_cells import SCALE_FIELDS, places_at, read_cell
from pages import with_table
from timebox.benchmarking.statistics import MIN_PAIRS, describe
from timebox.clock import format_duration, parse_budget
from timebox.planning.auto import auto_recipe
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.model_scales import (
    LEFT_OUT_LOSS,
    WIDTH_EPOCHS,
    WIDTH_EXPONENT,
    ModelScale,
    model_scales,
    required_epochs,
)

ROOT = Path(__file__).parents[1]
CELLS = "*auto-cells*/cells.jsonl"
PAGE = "docs/auto.md"
AUTO = "auto"
# Not inferior: no more points below on average, and at the lower end of the 95 % interval.
MEAN_MARGIN, LOWER_MARGIN = -0.3, -1.0
# Points that more time may cost.
FALL_MARGIN = 0.5
# What goes with a network, and what it was where a record does not say.
GOES_WITH_IT = {"batch_size": None, "mixup": 0.0, "mixup_until": 1.0, "blur_pool": False}
# What is tried: epochs of 5,000 images, and how fast they fall with more of them.
EPOCHS = tuple(round(1.5 * 1.2**k, 2) for k in range(14))
EXPONENTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# The speed that `auto` reads may be a fifth off: it has to choose well by such readings too.
READINGS = (0.8, 1.0, 1.25)

Line = Mapping[str, object]
Parameters = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """A task, a machine, its speed, a record and a budget. What lies in different records was trained by different
    versions of the code, and is not compared."""

    task: str
    machine: str
    speed: str
    record: str
    budget: str

    @property
    def order(self) -> tuple[str, str, str, str, float]:
        return self.task, self.machine, self.speed, self.record, parse_budget(self.budget)


@dataclass(frozen=True)
class Measured:
    """A rung in a cell: its mean accuracy in points, and the epochs there was time for."""

    place: int
    task: DatasetProfile
    accuracy: float
    epochs: float


Rungs = Mapping[Cell, Sequence[Measured]]
Losses = Mapping[Parameters, Mapping[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where something differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ and records/ lie")
    given = parser.parse_args(argv)
    cells = by_cell(read(given.root / "records"))
    measured = rungs_of(cells)
    losses = losses_of(measured)
    fitted, unseen = fit(losses), left_out(losses)
    said, found = (WIDTH_EPOCHS, WIDTH_EXPONENT, LEFT_OUT_LOSS), (*fitted, mean_and_most(unseen))
    page = given.root / PAGE
    wanted = text = page.read_text(encoding="utf-8")
    tables = {
        "standing": standing(cells),
        "more-time": more_time(cells),
        "fit": fit_table(measured, losses[fitted], unseen),
    }
    for name, table in tables.items():
        wanted = with_table(PAGE, wanted, name, table)
    print(f"WIDTH_EPOCHS, WIDTH_EXPONENT = {fitted}; LEFT_OUT_LOSS = {mean_and_most(unseen)}")
    if given.check:
        differing = [PAGE] * (wanted != text) + ["src/timebox/planning/auto.py"] * (said != found)
        for name in differing:
            print(f"fit_auto.py: {name} and the cells in records/ disagree", file=sys.stderr)
        return 1 if differing else 0
    page.write_text(wanted, encoding="utf-8")
    return 0


def read(records: Path) -> list[Line]:
    """The trials of all cells that lie there, but for those that failed or were late. A record's folder names the
    machine last."""
    lines: list[Line] = []
    for path in sorted(records.glob(CELLS)):
        machine = path.parent.name.rsplit("_", 1)[1]
        about = {"machine": machine, "record": path.parent.name}
        lines += [{**about, **read_cell(text)} for text in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["accuracy"] is not None and not line["late"]]


def by_cell(lines: Sequence[Line]) -> dict[Cell, list[Line]]:
    cells: dict[Cell, list[Line]] = defaultdict(list)
    for line in lines:
        cell = Cell(*(str(line[name]) for name in ("task", "machine", "speed", "record", "trial_budget")))
        cells[cell].append(line)
    return {cell: cells[cell] for cell in sorted(cells, key=lambda cell: cell.order)}


def standing(cells: Mapping[Cell, Sequence[Line]]) -> list[str]:
    """A table with a line for each cell where built-in recipes were trained beside: auto, the best of them, the paired
    difference, and how many of auto's trainings are as it would choose today."""
    compared = ("auto", "best built-in", "difference", "95 % interval", "n", "not inferior", "as today")
    head = head_of("task", "machine", "speed", "budget", *compared)
    rows: list[str] = []
    for cell, lines in cells.items():
        by_label = accuracies(lines)
        auto = by_label.pop(AUTO, {})
        if not auto or not by_label:
            continue
        best = max(by_label, key=lambda label: statistics.fmean(by_label[label].values()))
        budget = format_duration(parse_budget(cell.budget))
        rows.append(f"| {cell.task} | {cell.machine} | {cell.speed} | {budget} | {mean(auto)} | ")
        rows[-1] += f"{mean(by_label[best])} (`{best}`) | " + paired(auto, by_label[best])
        by_auto = [line for line in lines if line["label"] == AUTO]
        rows[-1] += f" {sum(map(is_as_today, by_auto))} of {len(by_auto)} |"
    return [*head, *rows] if rows else []


def is_as_today(line: Line) -> bool:
    """Whether `auto` would train the network of a trial as it did then, with time for as many epochs."""
    task = task_of(line)
    num_images_seen = task.num_images * float(str(line["epochs"]))
    network = {name: value for name in SCALE_FIELDS if isinstance(value := line[name], int | float)}
    recipe, _ = auto_recipe(task, lambda recipe: num_images_seen, network)
    return all(getattr(recipe, name) == line.get(name, before) for name, before in GOES_WITH_IT.items())


def accuracies(lines: Sequence[Line]) -> dict[str, dict[object, float]]:
    """Of the recipes in a cell, in points by seed; those with changed fields are left out."""
    by_label: dict[str, dict[object, float]] = defaultdict(dict)
    for line in lines:
        if " " not in str(line["label"]):
            by_label[str(line["label"])][line["seed"]] = 100 * float(str(line["accuracy"]))
    return by_label


def more_time(cells: Mapping[Cell, Sequence[Line]]) -> list[str]:
    """A table with a line for each task, machine, speed and record where `auto` had several budgets: what it came to
    with each, over so many seeds, and the furthest that it fell with more time."""
    reached: dict[tuple[str, str, str, str], dict[float, Mapping[object, float]]] = defaultdict(dict)
    for cell, lines in cells.items():
        if auto := accuracies(lines).get(AUTO):
            reached[cell.task, cell.machine, cell.speed, cell.record][parse_budget(cell.budget)] = auto
    reached = {row: by_budget for row, by_budget in reached.items() if len(by_budget) > 1}
    budgets = sorted({budget for by_budget in reached.values() for budget in by_budget})
    durations = map(format_duration, budgets)
    rows = head_of("task", "machine", "speed", *durations, "furthest fall", f"at most {FALL_MARGIN}")
    for (task, machine, speed, _), by_budget in reached.items():
        fall = furthest_fall([statistics.fmean(by_budget[budget].values()) for budget in sorted(by_budget)])
        there = [f"{mean(by_budget[b])} ({len(by_budget[b])})" if b in by_budget else "–" for b in budgets]
        row = [task, machine, speed, *there, f"{fall:.1f}", "yes" if fall <= FALL_MARGIN else "**no**"]
        rows.append("| " + " | ".join(row) + " |")
    return rows if reached else []


def head_of(*columns: str) -> list[str]:
    """The first two lines of a table."""
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def furthest_fall(means: Sequence[float]) -> float:
    """Points by which one is below an earlier one, at most."""
    return max(max(means[: i + 1]) - later for i, later in enumerate(means))


def mean(accuracies: Mapping[object, float]) -> str:
    return f"{statistics.fmean(accuracies.values()):.1f}"


def paired(auto: Mapping[object, float], other: Mapping[object, float]) -> str:
    """The last columns of a row: the difference over the seeds that both have."""
    figures = describe([auto[seed] - other[seed] for seed in auto if seed in other])
    if figures.mean is None or figures.interval is None:
        return f"– | – | {figures.n} | – |"
    low, high = figures.interval
    verdict = "yes" if figures.mean >= MEAN_MARGIN and low >= LOWER_MARGIN else "**no**"
    if figures.n < MIN_PAIRS:
        verdict = "too few pairs"
    return f"{figures.mean:+.1f} | {low:+.1f} … {high:+.1f} | {figures.n} | {verdict} |"


def rungs_of(cells: Mapping[Cell, Sequence[Line]]) -> Rungs:
    """The rungs measured in each cell, from the least work to the most; single ones are left out."""
    measured: dict[Cell, list[Measured]] = {}
    for cell, lines in cells.items():
        trials: dict[int, list[Line]] = defaultdict(list)
        for line in lines:
            if str(line["label"]).split()[0] == AUTO and (place := place_of(line)) is not None:
                trials[place].append(line)
        if len(trials) > 1:
            measured[cell] = [summed_up(place, trials[place]) for place in sorted(trials)]
    return measured


def place_of(line: Line) -> int | None:
    """Where on the ladder a trial was trained; None for what is none of its rungs, or was one only then."""
    return places_at(task_of(line).side).get(tuple(line[name] for name in SCALE_FIELDS))


def task_of(line: Line) -> DatasetProfile:
    """What a network's place and what goes with it depend on; classes and mirroring change neither."""
    return DatasetProfile(int(str(line["train_images"])), int(str(line["side"])), num_classes=2, mirror_allowed=True)


def summed_up(place: int, trials: Sequence[Line]) -> Measured:
    return Measured(
        place,
        task_of(trials[0]),
        100 * statistics.fmean(float(str(line["accuracy"])) for line in trials),
        statistics.fmean(float(str(line["epochs"])) for line in trials),
    )


def losses_of(measured: Rungs) -> Losses:
    """For all that is tried, what choosing with it loses on each task."""
    return {candidate: by_task(candidate, measured) for candidate in product(EPOCHS, EXPONENTS)}


def fit(losses: Losses, left_out: str | None = None) -> Parameters:
    """What loses least on average over the tasks, one of which may be left out. Of equals, the one in their middle."""
    means = {
        candidate: statistics.fmean(loss for task, loss in by_task.items() if task != left_out)
        for candidate, by_task in losses.items()
    }
    least = min(means.values())
    equals = [candidate for candidate, mean in means.items() if mean <= least + 1e-9]
    middle = [statistics.fmean(values) for values in zip(*map(on_scale, equals), strict=True)]
    return min(equals, key=lambda candidate: math.dist(on_scale(candidate), middle))


def on_scale(candidate: Parameters) -> tuple[float, float]:
    """A step of either parameter is about as long."""
    return math.log(candidate[0]) / math.log(EPOCHS[1] / EPOCHS[0]), 10 * candidate[1]


def left_out(losses: Losses) -> dict[str, float]:
    """What is lost on each task with the parameters fitted on all others."""
    return {task: losses[fit(losses, left_out=task)][task] for task in next(iter(losses.values()))}


def by_task(candidate: Parameters, measured: Rungs) -> dict[str, float]:
    """Points below the best rung measured, on average over the cells of each task and what may be read there."""
    losses: dict[str, list[float]] = defaultdict(list)
    steps = model_scales(*candidate)
    for cell, there in measured.items():
        best = max(scale.accuracy for scale in there)
        losses[cell.task] += [best - chosen(there, steps, reading).accuracy for reading in READINGS]
    return {task: statistics.fmean(values) for task, values in losses.items()}


def chosen(there: Sequence[Measured], steps: Sequence[ModelScale], reading: float) -> Measured:
    """Of the rungs measured, the one that auto would climb to if it read that multiple of the speed."""
    taken = there[0]
    for scale in there[1:]:
        if reading * scale.epochs < required_epochs(steps[scale.place], scale.task):
            break
        taken = scale
    return taken


def mean_and_most(losses: Mapping[str, float]) -> tuple[float, float]:
    return round(statistics.fmean(losses.values()), 2), round(max(losses.values()), 2)


def fit_table(measured: Rungs, as_fitted: Mapping[str, float], unseen: Mapping[str, float]) -> list[str]:
    """A table with a line for each task: what choosing loses as fitted on all, and on all others."""
    rows = head_of("task", "cells", "points lost", "points lost, fitted without it")
    for task, loss in unseen.items():
        num_cells = sum(cell.task == task for cell in measured)
        rows.append(f"| {task} | {num_cells} | {as_fitted[task]:.2f} | {loss:.2f} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
