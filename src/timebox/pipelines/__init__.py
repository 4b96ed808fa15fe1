"""One file for each verb of the command line, each a public function that reads as the method does.

A pipeline parses its arguments, reads data, plans, trains, evaluates and writes by calling the packages below it.
Parts that several verbs share live in ``jobs``; nothing is computed here that they could compute.
"""

from timebox.pipelines.evaluate import Evaluation, evaluate
from timebox.pipelines.inspect import inspect
from timebox.pipelines.lr_find import LRRange, lr_find
from timebox.pipelines.predict import predict
from timebox.pipelines.report import compare, report
from timebox.pipelines.train import train

__all__ = ["Evaluation", "LRRange", "compare", "evaluate", "inspect", "lr_find", "predict", "report", "train"]
