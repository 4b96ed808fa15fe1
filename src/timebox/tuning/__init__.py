"""Search for a better recipe under one deadline; needs the extra ``tune``."""

from timebox.tuning.tune import Tuned, tune

__all__ = ["Tuned", "tune"]
