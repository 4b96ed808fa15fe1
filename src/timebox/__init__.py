"""Give timebox labelled images and a deadline; before the clock runs out it hands you the best classifier your
hardware could train, with proof of what it reached.

>>> import timebox  # at once: torch is imported when it is first needed
>>> run = timebox.train("photos", steps=20, out="runs/another")
>>> run.predict(["photos/red/1.png"])
['red']
"""

from timebox.processes.import_path import drop_working_directory

drop_working_directory()  # before any other import

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from timebox.version import VERSION as __version__  # noqa: E402

if TYPE_CHECKING:
    from timebox.benchmarking import Benchmark, benchmark
    from timebox.data import ImageDataset, Inspection, decode_image
    from timebox.errors import (
        ArgumentError,
        BudgetError,
        DataError,
        OutputError,
        RankFailureError,
        RunError,
        TimeboxError,
        UsageError,
    )
    from timebox.estimator import TimeboxClassifier
    from timebox.exporting import Exported, export
    from timebox.pipelines import Evaluation, compare, evaluate, inspect, lr_find, predict, report, train
    from timebox.recipe import Recipe
    from timebox.run import Run, load
    from timebox.tuning import Tuned, tune

__all__ = [
    "ArgumentError",
    "Benchmark",
    "BudgetError",
    "DataError",
    "Evaluation",
    "Exported",
    "ImageDataset",
    "Inspection",
    "OutputError",
    "RankFailureError",
    "Recipe",
    "Run",
    "RunError",
    "TimeboxClassifier",
    "TimeboxError",
    "Tuned",
    "UsageError",
    "__version__",
    "benchmark",
    "compare",
    "decode_image",
    "evaluate",
    "export",
    "inspect",
    "load",
    "lr_find",
    "predict",
    "report",
    "train",
    "tune",
]

_HOMES = {
    "timebox.benchmarking": ("Benchmark", "benchmark"),
    "timebox.data": ("ImageDataset", "Inspection", "decode_image"),
    "timebox.errors": (
        "ArgumentError",
        "BudgetError",
        "DataError",
        "OutputError",
        "RankFailureError",
        "RunError",
        "TimeboxError",
        "UsageError",
    ),
    "timebox.estimator": ("TimeboxClassifier",),
    "timebox.exporting": ("Exported", "export"),
    "timebox.recipe": ("Recipe",),
    "timebox.run": ("Run", "load"),
    "timebox.tuning": ("Tuned", "tune"),
}  # all others are in timebox.pipelines


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'timebox' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "timebox.pipelines")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
