"""The run directory: its files and their types, each written whole or not at all and read without trusting it.

:class:`Run` loads a run directory and predicts with its model. Nothing here trains, plans or scores: ``jobs`` and
``pipelines`` do.
"""

from timebox.run.predicting.files import FilePrediction
from timebox.run.run import Run, load

__all__ = ["FilePrediction", "Run", "load"]
