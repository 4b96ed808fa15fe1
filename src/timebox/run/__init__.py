"""Runs: making them, loading them, calling and judging them. One public function per verb of the command line."""

from timebox.engine.figures import ClassFigures
from timebox.run.evaluate import Evaluation, evaluate
from timebox.run.inspect import inspect
from timebox.run.lr_find import LrFound, lr_find
from timebox.run.predict import predict
from timebox.run.report import compare, report
from timebox.run.run import FilePrediction, Run, load
from timebox.run.train import train

__all__ = [
    "ClassFigures",
    "Evaluation",
    "FilePrediction",
    "LrFound",
    "Run",
    "compare",
    "evaluate",
    "inspect",
    "load",
    "lr_find",
    "predict",
    "report",
    "train",
]
