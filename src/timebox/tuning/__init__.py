"""Search for a better recipe under one deadline; needs the extra ``tune``.

Optuna stores the trials and samples them. What it does not do is here: budgets of trials, worker processes, repeats with
other seeds, and the final run.
"""

from timebox.tuning.tune import Tuned, tune

__all__ = ["Tuned", "tune"]
