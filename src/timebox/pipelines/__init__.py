"""The verbs of the command line, one file and one public function each.

A verb checks its arguments, then reads, plans, trains, evaluates and writes by calling the packages below. Nothing
that several verbs share is here: it is in ``jobs``. ``resume`` and ``replay`` are options of :func:`train`.
"""

from timebox.pipelines.compare import compare
from timebox.pipelines.evaluate import Evaluation, evaluate
from timebox.pipelines.inspect import inspect
from timebox.pipelines.lr_find import LRRange, lr_find
from timebox.pipelines.plan import PlannedTraining, plan
from timebox.pipelines.predict import predict
from timebox.pipelines.report import report
from timebox.pipelines.train import train

__all__ = [
    "Evaluation",
    "LRRange",
    "PlannedTraining",
    "compare",
    "evaluate",
    "inspect",
    "lr_find",
    "plan",
    "predict",
    "report",
    "train",
]
