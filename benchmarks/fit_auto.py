"""Compare `auto` with the built-in recipes, and fit the required epochs of its model scales, from measured cells.

    python benchmarks/fit_auto.py            # writes the tables in docs/explanation/auto.md, and prints the fit
    python benchmarks/fit_auto.py --check    # fails if docs/explanation/auto.md or planning/model_scales.py differ

The cells are in records/: trials of `auto`, of the built-in recipes, and of the model scales next to the one that
`auto` selected, as written by `auto_cells.py`. The fit minimises the accuracy lost by the selection among the measured
scales, on average over the tasks, and over throughputs measured too low, right and too high. It is validated by leaving
out each task in turn.
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

from auto_cells import SCALE_FIELDS, read_cell, scale_positions
from pages import replace_table
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
PAGE = "docs/explanation/auto.md"
AUTO = "auto"
# "Not inferior": smallest difference in points, on average and at the lower end of the 95 % interval.
MEAN_MARGIN, LOWER_MARGIN = -0.3, -1.0
# Largest loss in points that more time may cause.
LOSS_MARGIN = 0.5
# Fields that depend on the network and the epochs, with their values where a record lacks them.
DERIVED_FIELDS = {"batch_size": None, "mixup": 0.0, "mixup_until": 1.0, "blur_pool": False}
# Candidates of the fit: WIDTH_EPOCHS and WIDTH_EXPONENT.
EPOCHS = tuple(round(1.5 * 1.2**k, 2) for k in range(14))
EXPONENTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Errors of the measured throughput for which the selection has to be good.
SPEED_ERRORS = (0.8, 1.0, 1.25)

Line = Mapping[str, object]
Parameters = tuple[float, float]


@dataclass(frozen=True)
class Cell:
    """A task, a machine, its speed, a record and a budget.

    Cells of different records are not compared, as they were trained by different versions of the code.
    """

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
    """A model scale in a cell: position in MODEL_SCALES, mean accuracy in points, and mean epochs."""

    position: int
    task: DatasetProfile
    accuracy: float
    epochs: float


MeasuredScales = Mapping[Cell, Sequence[Measured]]
Losses = Mapping[Parameters, Mapping[str, float]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where something differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ and records/ lie")
    arguments = parser.parse_args(argv)
    cells = by_cell(read(arguments.root / "records"))
    measured = measured_scales(cells)
    losses = losses_of(measured)
    fitted, unseen = fit(losses), left_out(losses)
    current, fitted_values = (WIDTH_EPOCHS, WIDTH_EXPONENT, LEFT_OUT_LOSS), (*fitted, mean_and_max(unseen))
    page = arguments.root / PAGE
    wanted = text = page.read_text(encoding="utf-8")
    tables = {
        "standing": standing(cells),
        "more-time": more_time(cells),
        "fit": fit_table(measured, losses[fitted], unseen),
    }
    for name, table in tables.items():
        wanted = replace_table(PAGE, wanted, name, table)
    print(f"WIDTH_EPOCHS, WIDTH_EXPONENT = {fitted}; LEFT_OUT_LOSS = {mean_and_max(unseen)}")
    if arguments.check:
        differing = [PAGE] * (wanted != text) + ["src/timebox/planning/model_scales.py"] * (current != fitted_values)
        for name in differing:
            print(f"fit_auto.py: {name} and the cells in records/ disagree", file=sys.stderr)
        return 1 if differing else 0
    page.write_text(wanted, encoding="utf-8")
    return 0


def read(records: Path) -> list[Line]:
    """All trials in records/ that did not fail and were not late. The name of a record ends with its machine."""
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
    """Table of the cells with built-in recipes: auto, the best built-in recipe, their paired difference, and the number
    of auto's trainings that it would plan today."""
    compared = ("auto", "best built-in", "difference", "95 % interval", "n", "not inferior", "as today")
    head = table_head("task", "machine", "speed", "budget", *compared)
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
        rows[-1] += f" {sum(map(is_planned_today, by_auto))} of {len(by_auto)} |"
    return [*head, *rows] if rows else []


def is_planned_today(line: Line) -> bool:
    """Whether `auto` would plan the recipe of a trial today, for its network and its epochs."""
    task = task_of(line)
    num_images_seen = task.num_images * float(str(line["epochs"]))
    network = {name: value for name in SCALE_FIELDS if isinstance(value := line[name], int | float)}
    recipe, _ = auto_recipe(task, lambda recipe: num_images_seen, network)
    return all(getattr(recipe, name) == line.get(name, before) for name, before in DERIVED_FIELDS.items())


def accuracies(lines: Sequence[Line]) -> dict[str, dict[object, float]]:
    """Accuracies in points by recipe and seed; `auto` with changed fields is left out."""
    by_label: dict[str, dict[object, float]] = defaultdict(dict)
    for line in lines:
        if not (label := str(line["label"])).startswith(f"{AUTO} "):
            by_label[label][line["seed"]] = 100 * float(str(line["accuracy"]))
    return by_label


def more_time(cells: Mapping[Cell, Sequence[Line]]) -> list[str]:
    """Table of the tasks, machines, speeds and records with several budgets: accuracy of `auto` with each budget,
    number of seeds, and the largest loss with more time."""
    reached: dict[tuple[str, str, str, str], dict[float, Mapping[object, float]]] = defaultdict(dict)
    for cell, lines in cells.items():
        if auto := accuracies(lines).get(AUTO):
            reached[cell.task, cell.machine, cell.speed, cell.record][parse_budget(cell.budget)] = auto
    reached = {row: by_budget for row, by_budget in reached.items() if len(by_budget) > 1}
    budgets = sorted({budget for by_budget in reached.values() for budget in by_budget})
    durations = map(format_duration, budgets)
    rows = table_head("task", "machine", "speed", *durations, "largest loss", f"at most {LOSS_MARGIN}")
    for (task, machine, speed, _), by_budget in reached.items():
        fall = largest_loss([statistics.fmean(by_budget[budget].values()) for budget in sorted(by_budget)])
        there = [f"{mean(by_budget[b])} ({len(by_budget[b])})" if b in by_budget else "–" for b in budgets]
        row = [task, machine, speed, *there, f"{fall:.1f}", "yes" if fall <= LOSS_MARGIN else "**no**"]
        rows.append("| " + " | ".join(row) + " |")
    return rows if reached else []


def table_head(*columns: str) -> list[str]:
    """The first two lines of a Markdown table."""
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def largest_loss(means: Sequence[float]) -> float:
    """Largest difference in points by which a mean is below an earlier one."""
    return max(max(means[: i + 1]) - later for i, later in enumerate(means))


def mean(accuracies: Mapping[object, float]) -> str:
    return f"{statistics.fmean(accuracies.values()):.1f}"


def paired(auto: Mapping[object, float], other: Mapping[object, float]) -> str:
    """The last columns of a row: the paired difference over common seeds."""
    figures = describe([auto[seed] - other[seed] for seed in auto if seed in other])
    if figures.mean is None or figures.interval is None:
        return f"– | – | {figures.n} | – |"
    low, high = figures.interval
    verdict = "yes" if figures.mean >= MEAN_MARGIN and low >= LOWER_MARGIN else "**no**"
    if figures.n < MIN_PAIRS:
        verdict = "too few pairs"
    return f"{figures.mean:+.1f} | {low:+.1f} … {high:+.1f} | {figures.n} | {verdict} |"


def measured_scales(cells: Mapping[Cell, Sequence[Line]]) -> MeasuredScales:
    """The measured model scales of each cell, in increasing order; cells with a single scale are left out."""
    measured: dict[Cell, list[Measured]] = {}
    for cell, lines in cells.items():
        trials: dict[int, list[Line]] = defaultdict(list)
        for line in lines:
            if str(line["label"]).split()[0] == AUTO and (position := scale_position(line)) is not None:
                trials[position].append(line)
        if len(trials) > 1:
            measured[cell] = [average_trials(position, trials[position]) for position in sorted(trials)]
    return measured


def scale_position(line: Line) -> int | None:
    """Position in MODEL_SCALES of the scale of a trial; None if it is not among the present scales."""
    return scale_positions(task_of(line).side).get(tuple(line[name] for name in SCALE_FIELDS))


def task_of(line: Line) -> DatasetProfile:
    """Profile of the data of a trial; neither classes nor flips affect the selection of the scale."""
    return DatasetProfile(int(str(line["train_images"])), int(str(line["side"])), num_classes=2, mirror_allowed=True)


def average_trials(position: int, trials: Sequence[Line]) -> Measured:
    return Measured(
        position,
        task_of(trials[0]),
        100 * statistics.fmean(float(str(line["accuracy"])) for line in trials),
        statistics.fmean(float(str(line["epochs"])) for line in trials),
    )


def losses_of(measured: MeasuredScales) -> Losses:
    """Accuracy lost on each task with each candidate of the fit."""
    return {candidate: by_task(candidate, measured) for candidate in product(EPOCHS, EXPONENTS)}


def fit(losses: Losses, left_out: str | None = None) -> Parameters:
    """The candidate with the smallest mean loss over the tasks except ``left_out``; the central one of equals."""
    means = {
        candidate: statistics.fmean(loss for task, loss in by_task.items() if task != left_out)
        for candidate, by_task in losses.items()
    }
    least = min(means.values())
    equals = [candidate for candidate, mean in means.items() if mean <= least + 1e-9]
    middle = [statistics.fmean(values) for values in zip(*map(on_scale, equals), strict=True)]
    return min(equals, key=lambda candidate: math.dist(on_scale(candidate), middle))


def on_scale(candidate: Parameters) -> tuple[float, float]:
    """A candidate in units of the steps between candidates."""
    return math.log(candidate[0]) / math.log(EPOCHS[1] / EPOCHS[0]), 10 * candidate[1]


def left_out(losses: Losses) -> dict[str, float]:
    """Accuracy lost on each task with the parameters fitted on all other tasks."""
    return {task: losses[fit(losses, left_out=task)][task] for task in next(iter(losses.values()))}


def by_task(candidate: Parameters, measured: MeasuredScales) -> dict[str, float]:
    """Mean loss of each task: points below the best measured scale, over its cells and the errors of the throughput."""
    losses: dict[str, list[float]] = defaultdict(list)
    steps = model_scales(*candidate)
    for cell, there in measured.items():
        best = max(scale.accuracy for scale in there)
        losses[cell.task] += [best - select_scale(there, steps, error).accuracy for error in SPEED_ERRORS]
    return {task: statistics.fmean(values) for task, values in losses.items()}


def select_scale(there: Sequence[Measured], steps: Sequence[ModelScale], speed_error: float) -> Measured:
    """The measured scale that auto would select if it measured the throughput with a relative error."""
    selected = there[0]
    for scale in there[1:]:
        if speed_error * scale.epochs < required_epochs(steps[scale.position], scale.task):
            break
        selected = scale
    return selected


def mean_and_max(losses: Mapping[str, float]) -> tuple[float, float]:
    return round(statistics.fmean(losses.values()), 2), round(max(losses.values()), 2)


def fit_table(measured: MeasuredScales, as_fitted: Mapping[str, float], unseen: Mapping[str, float]) -> list[str]:
    """Table of the tasks: accuracy lost with the fit to all tasks, and with the fit to all others."""
    rows = table_head("task", "cells", "points lost", "points lost, fitted without it")
    for task, loss in unseen.items():
        num_cells = sum(cell.task == task for cell in measured)
        rows.append(f"| {task} | {num_cells} | {as_fitted[task]:.2f} | {loss:.2f} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
