"""Fit the forecast of the accuracy to the trainings of `auto` in records/, and validate it on data sets left out.

    python benchmarks/fit_forecast.py            # writes fitted.json and the table in docs/explanation/auto.md
    python benchmarks/fit_forecast.py --check    # fails where they differ from the records
    python benchmarks/fit_forecast.py --measure TASKS/*.npz > RECORD/features.jsonl   # of tasks that tasks.py wrote

The model is linear in the terms of `TrainingFeatures.vector`, with a random effect of each data set, as trainings on
one data set are far more alike than those on two. Its variances are those of the largest restricted likelihood on a
grid. It is validated by leaving out each data set in turn, with all tasks that are made of it; how far these come out
from what is forecast, in standard deviations, decides how wide the intervals are.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from auto_cells import SCALE_FIELDS
from fit_auto import AUTO, ROOT, table_head
from fit_auto import read as read_cells
from pages import replace_table
from timebox.data import SplitConfig, load_data, split_dataset
from timebox.planning.auto import AUTO_BASE
from timebox.planning.forecast.accuracy_model import (
    COVERAGE,
    FITTED,
    AccuracyModel,
    TrainingFeatures,
    to_angle,
    training_work,
)
from timebox.planning.forecast.patch_classifier import PatchAccuracy, measure_patch_accuracy
from timebox.recipes.recipe import upgrade_fields

PAGE, MODEL = "docs/explanation/auto.md", f"src/timebox/planning/forecast/{FITTED}"
TASK_FEATURES = "*/features.jsonl"
# Records of single data sets, by the second part of their names, and the tasks whose features they have.
DATA_SETS = {"cifar10-5000": "cifar10-500", "cifar10": "cifar10-4500", "cifar100": "cifar100-450"}
# Tasks whose name does not begin with that of the data set that they are made of.
SOURCES = {"cats-dogs-1000": "cifar10", "cifar20-250": "cifar100"}
# Candidates for the standard deviations between data sets and between trainings, in radians.
DATA_SDS = (0.05, 0.07, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, 0.6)
TRAINING_SDS = (0.03, 0.05, 0.07, 0.09, 0.11, 0.14, 0.2)
# Standard deviation of the coefficients before anything is known.
PRIOR_SD = 3.0

Line = Mapping[str, object]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Trained:
    """A training of `auto`: its data set and task, the features of the forecast, and the held-out accuracy."""

    data_set: str
    task: str
    features: TrainingFeatures
    accuracy: float
    num_scored: int

    @property
    def angle(self) -> float:
        return to_angle(self.accuracy, self.features.num_classes)


@dataclass(frozen=True, eq=False)
class Trainings:
    """Trainings as the arrays of a regression: terms (N, K), angles and scoring variances (N)."""

    trained: Sequence[Trained]

    @cached_property
    def terms(self) -> Matrix:
        return np.array([one.features.vector() for one in self.trained])

    @cached_property
    def angles(self) -> Matrix:
        return np.array([one.angle for one in self.trained])

    @cached_property
    def scoring_variances(self) -> Matrix:
        return np.array([1 / one.num_scored for one in self.trained])

    @cached_property
    def data_sets(self) -> list[str]:
        return sorted({one.data_set for one in self.trained})

    @cached_property
    def by_data_set(self) -> list[NDArray[np.int64]]:
        """The positions of the trainings on each data set."""
        names = np.array([one.data_set for one in self.trained])
        return [np.flatnonzero(names == name) for name in self.data_sets]

    def of(self, data_set: str, is_it: bool = True) -> "Trainings":
        """Those of a data set, or of all others."""
        return Trainings([one for one in self.trained if (one.data_set == data_set) == is_it])


@dataclass(frozen=True)
class Fit:
    coefficients: Matrix
    covariance: Matrix
    log_likelihood: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail where something differs")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/, records/ and src/ lie")
    parser.add_argument(
        "--measure", type=Path, nargs="+", metavar="TASK", help="print a line of features for each task"
    )
    arguments = parser.parse_args(argv)
    for task in arguments.measure or ():
        print(json.dumps(measure(task)), flush=True)
    if arguments.measure:
        return 0
    root = arguments.root
    trainings = Trainings(list(read(root / "records")))
    left_out = {name: fit(trainings.of(name, False)) for name in trainings.data_sets}
    distances = {name: distances_to(model, trainings.of(name)) for name, model in left_out.items()}
    model = msgspec.structs.replace(fit(trainings), quantile=quantile(distances))
    text = msgspec.json.format(msgspec.json.encode(model), indent=1).decode() + "\n"
    page = root / PAGE
    table = validation_table(trainings, left_out, distances)
    new_page = replace_table(PAGE, page.read_text(encoding="utf-8"), "forecast", table)
    print(*table, sep="\n")
    print(f"data_sd {model.data_sd}, training_sd {model.training_sd}; {len(trainings.trained)} trainings")
    wanted = {root / MODEL: text, page: new_page}
    if arguments.check:
        differing = [path for path, wanted_text in wanted.items() if not is_same(path, wanted_text)]
        for path in differing:
            print(f"fit_forecast.py: {path.relative_to(root)} and records/ disagree", file=sys.stderr)
        return 1 if differing else 0
    for path, wanted_text in wanted.items():
        path.write_text(wanted_text, encoding="utf-8")
    return 0


def is_same(path: Path, wanted: str) -> bool:
    """Whether a file says what is wanted; numbers of the model may differ in their last digits between processors."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if path.name != FITTED or not text:
        return text == wanted
    pair = [msgspec.json.decode(each, type=AccuracyModel) for each in (text, wanted)]
    return all(
        np.allclose(getattr(pair[0], name), getattr(pair[1], name), rtol=1e-4, atol=1e-6)
        for name in ("coefficients", "covariance", "data_sd", "training_sd", "quantile")
    ) and all(np.allclose(pair[0].ranges[name], pair[1].ranges[name], rtol=1e-4) for name in pair[1].ranges)


def measure(task: Path) -> Line:
    """The features of a task: those of its data that the accuracy is forecast from."""
    train = split_dataset(load_data(task).splits, SplitConfig(val="none", test="none")).train
    patches = measure_patch_accuracy(train)
    return {
        "task": task.stem,
        "data_set": SOURCES.get(task.stem, task.stem.split("-")[0]),
        "train_images": len(train),
        "num_classes": train.num_classes,
        "side": min(train.image_shape[:2]),
        "many": round(patches.many, 4),
        "few": round(patches.few, 4),
    }


def read(records: Path) -> Iterator[Trained]:
    """All trainings of plain `auto` whose task has measured features, and that were not late."""
    tasks: dict[str, Line] = {}
    for path in sorted(records.glob(TASK_FEATURES)):
        tasks |= {line["task"]: line for line in lines_of(path)}
    for line in read_cells(records):
        if line["task"] in tasks and is_usable(line):
            yield trained(tasks[str(line["task"])], line, line)
    for path in sorted(records.glob("*/trials.jsonl")):
        data_set = path.parent.name.split("_")[1]
        if data_set in DATA_SETS:
            for line in lines_of(path):
                if is_usable(line) and line.get("recipe") and line.get("budget_seconds"):
                    yield trained(tasks[DATA_SETS[data_set]], line, upgrade_fields(line["recipe"]))


def lines_of(path: Path) -> Iterator[Line]:
    for text in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(text)


def is_usable(line: Line) -> bool:
    return line["label"] == AUTO and line["accuracy"] is not None and not line["late"]


def trained(task: Line, line: Line, fields: Line) -> Trained:
    """A line of a record, with the fields of its recipe."""
    recipe = AUTO_BASE.replace(**{name: value for name in SCALE_FIELDS if (value := fields.get(name)) is not None})
    num_images = int(str(line.get("train_images") or task["train_images"]))
    work = training_work(recipe, float(str(task["side"])), float(str(line["epochs"])) * num_images)
    features = TrainingFeatures(
        num_images=num_images,
        num_classes=int(str(task["num_classes"])),
        patches=PatchAccuracy(float(str(task["many"])), float(str(task["few"]))),
        work=work,
    )
    accuracy, num_scored = float(str(line["accuracy"])), int(str(line["num_images"]))
    return Trained(str(task["data_set"]), str(task["task"]), features, accuracy, num_scored)


def regress(trainings: Trainings, data_sd: float, training_sd: float) -> Fit:
    """Generalised least squares with a random effect of each data set, and its restricted log-likelihood."""
    num_terms = trainings.terms.shape[1]
    precision, projected, log_likelihood = np.eye(num_terms) / PRIOR_SD**2, np.zeros(num_terms), 0.0
    blocks = []
    for rows in trainings.by_data_set:
        variance = np.diag(trainings.scoring_variances[rows] + training_sd**2) + data_sd**2
        terms, angles = trainings.terms[rows], trainings.angles[rows]
        weighted = np.linalg.solve(variance, np.column_stack([terms, angles]))
        precision += terms.T @ weighted[:, :-1]
        projected += terms.T @ weighted[:, -1]
        log_likelihood -= np.linalg.slogdet(variance)[1] / 2
        blocks.append((variance, terms, angles))
    coefficients = np.linalg.solve(precision, projected)
    for variance, terms, angles in blocks:
        residuals = angles - terms @ coefficients
        log_likelihood -= residuals @ np.linalg.solve(variance, residuals) / 2
    log_likelihood -= np.linalg.slogdet(precision)[1] / 2
    return Fit(coefficients, np.linalg.inv(precision), float(log_likelihood))


def fit(trainings: Trainings) -> AccuracyModel:
    """The model with the standard deviations of the largest likelihood, and without a quantile."""
    candidates = list(product(DATA_SDS, TRAINING_SDS))
    fits = [regress(trainings, *candidate) for candidate in candidates]
    best = max(range(len(fits)), key=lambda number: fits[number].log_likelihood)
    values = {
        "images": [one.features.num_images for one in trainings.trained],
        "classes": [one.features.num_classes for one in trainings.trained],
        "work": [one.features.work for one in trainings.trained],
        "patch_angle": [one.features.patch_angle for one in trainings.trained],
    }
    return AccuracyModel(
        coefficients=tuple(map(rounded, fits[best].coefficients)),
        covariance=tuple(tuple(map(rounded, row)) for row in fits[best].covariance),
        data_sd=candidates[best][0],
        training_sd=candidates[best][1],
        quantile=math.nan,
        ranges={name: (rounded(min(numbers)), rounded(max(numbers))) for name, numbers in values.items()},
    )


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def distances_to(model: AccuracyModel, trainings: Trainings) -> Matrix:
    """How far trainings came out from what a model forecasts, in its standard deviations."""
    pairs = [(one.angle, *model.angle(one.features, one.num_scored)) for one in trainings.trained]
    return np.array([abs(angle - mean) / sd for angle, mean, sd in pairs])


def quantile(distances: Mapping[str, Matrix]) -> float:
    """The distance within which COVERAGE of the trainings came out; each data set counts once."""
    values = np.concatenate(list(distances.values()))
    weights = np.concatenate([np.full(len(those), 1 / len(those)) for those in distances.values()])
    order = np.argsort(values)
    covered = np.cumsum(weights[order]) / weights.sum()
    return rounded(values[order][np.searchsorted(covered, COVERAGE)])


def validation_table(
    trainings: Trainings, left_out: Mapping[str, AccuracyModel], distances: Mapping[str, Matrix]
) -> list[str]:
    """Table of the data sets, each forecast by a fit to all others, which decide the width of the intervals too."""
    columns = ("data set", "trainings", "reached", "forecast without it", "points off", "width", "inside")
    rows, shares = table_head(*columns), []
    for name, fitted in left_out.items():
        others = {other: those for other, those in distances.items() if other != name}
        model = msgspec.structs.replace(fitted, quantile=quantile(others))
        those = trainings.of(name).trained
        intervals = [model.interval(one.features, one.num_scored) for one in those]
        reached, (low, middle, high) = np.array([one.accuracy for one in those]), np.array(intervals).T
        inside = (low <= reached) & (reached <= high)
        shares.append(inside.mean())
        means = (reached, middle, abs(reached - middle), high - low)
        figures = " | ".join(f"{100 * values.mean():.1f}" for values in means)
        rows.append(f"| {name} | {len(those)} | {figures} | {inside.sum()} |")
    counted = f"each of {len(shares)} data sets counted once"
    rows.append(f"| all, {counted} | {len(trainings.trained)} | | | | | {100 * np.mean(shares):.0f} % |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
