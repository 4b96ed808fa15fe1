"""The progress of a command or a call, as a user sees it: phases, notes and a line that follows the steps.

A :class:`Reporter` receives what happens; one draws on a terminal, one in a notebook, one writes plain lines. None of
them changes the result of a training. Progress for programs is in :mod:`timebox.callbacks`, and pages about finished
runs are made by :mod:`timebox.reporting`.
"""

from timebox.progress.reporter import ProgressNote, Reporter, SilentReporter, StepStatus
from timebox.progress.shown import progress_lines, show_progress

__all__ = ["ProgressNote", "Reporter", "SilentReporter", "StepStatus", "progress_lines", "show_progress"]
