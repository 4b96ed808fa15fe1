"""The metrics of a training by step as a table: the lines of metrics.jsonl."""

import os
from math import nan
from pathlib import Path

import numpy as np

from timebox.errors import RunError
from timebox.run.files import METRICS
from timebox.run.json_values import from_values
from timebox.run.metrics_log import RollbackLine, StepLine, ValidationLine, read_metrics
from timebox.run.results.table import Column, Table, to_table

# The columns after ``step``, which all lines of a training step have but ``threads``.
STEP_COLUMNS = ("epoch", "progress", "lr", "momentum", "loss", "resolution", "micro_batch", "threads")
VAL_ACCURACY = "val_accuracy"


def metrics_table(run: Path) -> Table:
    """The table of :attr:`Run.metrics`, of the run in this directory."""
    if not os.path.lexists(run / METRICS):
        raise RunError(f"run {str(run)!r} has no {METRICS}: it was saved without the metrics of its training")
    return to_table(_columns(*_read(run / METRICS)))


def _read(path: Path) -> tuple[dict[int, StepLine], dict[int, ValidationLine]]:
    """The steps and the validations that count, by step: what a later rollback undid is left out."""
    steps: dict[int, StepLine] = {}
    validations: dict[int, ValidationLine] = {}
    for _, entry in read_metrics(path):
        where = f"{str(path)!r}: a line"
        if "loss" in entry:
            step = from_values(entry, StepLine, where)
            steps[step.step] = step
        elif VAL_ACCURACY in entry:
            validation = from_values(entry, ValidationLine, where)
            validations[validation.step] = validation
        elif entry.get("rolled_back"):
            last = from_values(entry, RollbackLine, where).step
            steps = {step: line for step, line in steps.items() if step <= last}
            validations = {step: line for step, line in validations.items() if step <= last}
    return steps, validations


def _columns(steps: dict[int, StepLine], validations: dict[int, ValidationLine]) -> dict[str, Column]:
    """A row for each step, and for a validation after a step that has no line, such as one before the first step."""
    numbers = sorted(steps.keys() | validations.keys())
    columns: dict[str, Column] = {"step": np.array(numbers, np.int64)}
    for name in STEP_COLUMNS:
        values = (getattr(steps.get(number, validations.get(number)), name, None) for number in numbers)
        columns[name] = np.array([nan if value is None else value for value in values], np.float64)
    accuracies = (validations[number].val_accuracy if number in validations else nan for number in numbers)
    columns[VAL_ACCURACY] = np.fromiter(accuracies, np.float64, len(numbers))
    return columns
