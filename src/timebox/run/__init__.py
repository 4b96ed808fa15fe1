"""The run directory: the files a training leaves, each typed, written whole or not at all and read without trust.

:class:`Run` loads one and predicts with it. Nothing here trains, plans or scores; that is what ``jobs`` and
``pipelines`` do.
"""

from timebox.run.run import FilePrediction, Run, load

__all__ = ["FilePrediction", "Run", "load"]
