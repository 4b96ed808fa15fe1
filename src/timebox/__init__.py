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
from typing import TYPE_CHECKING, Any  # noqa: E402

from timebox.clock import call_started  # noqa: E402
from timebox.version import VERSION as __version__  # noqa: E402

if TYPE_CHECKING:
    from timebox.benchmarking import Benchmark, benchmark
    from timebox.callbacks.events import CheckpointInfo, EndInfo, PlanInfo, StepInfo, ValidationInfo
    from timebox.callbacks.mlflow import MLflowCallback
    from timebox.callbacks.tensorboard import TensorBoardCallback
    from timebox.callbacks.wandb import WandbCallback
    from timebox.configs.benchmark import BenchmarkConfig
    from timebox.configs.lr_find import LrFindConfig
    from timebox.configs.train import TrainConfig
    from timebox.configs.tune import TuneConfig
    from timebox.configs.verbs import (
        CompareConfig,
        EvaluateConfig,
        ExportConfig,
        InspectConfig,
        PlanConfig,
        PredictConfig,
        ReportConfig,
        ServeConfig,
        WatchConfig,
    )
    from timebox.data import ImageDataset, Inspection, decode_image
    from timebox.diagnosis import Diagnosis, doctor
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
    from timebox.pipelines import (
        Evaluation,
        PlannedTraining,
        compare,
        evaluate,
        inspect,
        lr_find,
        plan,
        predict,
        report,
        train,
    )
    from timebox.pipelines.lr_find import LRRange
    from timebox.planning.forecast import Forecast
    from timebox.progress import Reporter, StepStatus
    from timebox.recipes import Recipe, RecipeSpec
    from timebox.recipes.spec import recipe
    from timebox.reporting.run_data import RunData
    from timebox.run import Run, load
    from timebox.run.predicting.files import FilePrediction
    from timebox.tuning import Tuned, tune

__all__ = [
    "ArgumentError",
    "Benchmark",
    "BenchmarkConfig",
    "BudgetError",
    "CheckpointInfo",
    "CompareConfig",
    "DataError",
    "Diagnosis",
    "EndInfo",
    "EvaluateConfig",
    "Evaluation",
    "ExportConfig",
    "Exported",
    "FilePrediction",
    "Forecast",
    "ImageDataset",
    "InspectConfig",
    "Inspection",
    "LRRange",
    "LrFindConfig",
    "MLflowCallback",
    "OutputError",
    "PlanConfig",
    "PlanInfo",
    "PlannedTraining",
    "PredictConfig",
    "RankFailureError",
    "Recipe",
    "RecipeSpec",
    "ReportConfig",
    "Reporter",
    "Run",
    "RunData",
    "RunError",
    "ServeConfig",
    "StepInfo",
    "StepStatus",
    "TensorBoardCallback",
    "TimeboxClassifier",
    "TimeboxError",
    "TrainConfig",
    "TuneConfig",
    "Tuned",
    "UsageError",
    "ValidationInfo",
    "WandbCallback",
    "WatchConfig",
    "__version__",
    "benchmark",
    "compare",
    "decode_image",
    "doctor",
    "evaluate",
    "export",
    "inspect",
    "load",
    "lr_find",
    "plan",
    "predict",
    "recipe",
    "report",
    "train",
    "tune",
]

_HOMES = {
    "timebox.benchmarking": ("Benchmark", "benchmark"),
    "timebox.callbacks.events": ("CheckpointInfo", "EndInfo", "PlanInfo", "StepInfo", "ValidationInfo"),
    "timebox.callbacks.mlflow": ("MLflowCallback",),
    "timebox.callbacks.tensorboard": ("TensorBoardCallback",),
    "timebox.callbacks.wandb": ("WandbCallback",),
    "timebox.configs.benchmark": ("BenchmarkConfig",),
    "timebox.configs.lr_find": ("LrFindConfig",),
    "timebox.configs.train": ("TrainConfig",),
    "timebox.configs.tune": ("TuneConfig",),
    "timebox.configs.verbs": (
        "CompareConfig",
        "EvaluateConfig",
        "ExportConfig",
        "InspectConfig",
        "PlanConfig",
        "PredictConfig",
        "ReportConfig",
        "ServeConfig",
        "WatchConfig",
    ),
    "timebox.data": ("ImageDataset", "Inspection", "decode_image"),
    "timebox.diagnosis": ("Diagnosis", "doctor"),
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
    "timebox.pipelines.lr_find": ("LRRange",),
    "timebox.planning.forecast": ("Forecast",),
    "timebox.progress": ("Reporter", "StepStatus"),
    "timebox.recipes": ("Recipe", "RecipeSpec"),
    "timebox.recipes.spec": ("recipe",),
    "timebox.reporting.run_data": ("RunData",),
    "timebox.run": ("Run", "load"),
    "timebox.run.predicting.files": ("FilePrediction",),
    "timebox.tuning": ("Tuned", "tune"),
}  # all others are in timebox.pipelines


# Functions with a budget, which begins with their call and not with the imports before it.
_WITH_BUDGET = ("benchmark", "lr_find", "plan", "train", "tune")


def _home_of(name: str) -> str:
    return next((module for module, names in _HOMES.items() if name in names), "timebox.pipelines")


def _load(name: str) -> Any:
    return getattr(import_module(_home_of(name)), name)


class _FunctionWithBudget:
    """A public function that is imported by its first call, so that its budget includes the imports.

    Documentation, signature and all other attributes are those of the function.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name
        self.__module__ = f"{_home_of(name)}.{name}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with call_started():
            return _load(self.__name__)(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        return _load(self.__name__)

    @property
    def __signature__(self) -> Any:
        from inspect import signature  # takes some milliseconds

        return signature(self.__wrapped__)

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        return self.__wrapped__.__doc__  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(_load(self.__name__), name)

    def __reduce__(self) -> tuple[Any, ...]:
        return __getattr__, (self.__name__,)

    def __repr__(self) -> str:
        return f"<function timebox.{self.__name__}>"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'timebox' has no attribute {name!r}")
    if name in globals():  # asked for by pickle
        return globals()[name]
    value: object = _FunctionWithBudget(name) if name in _WITH_BUDGET else _load(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
