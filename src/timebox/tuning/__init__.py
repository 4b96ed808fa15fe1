"""Search for a better recipe under one deadline; needs the extra ``tune``.

Optuna stores and samples the trials. This package does not: it has the budgets of trials, the worker processes, repeats
with other seeds, and the final run.
"""

from timebox.tuning.tune import Tuned, tune

__all__ = ["Tuned", "tune"]
