"""How many trials a suite makes: ENDURANCE_SCALE=10 makes ten times as many as by default, 0.1 as few as it can."""

import os

SCALE = float(os.environ.get("ENDURANCE_SCALE") or 1)


def scaled(num_trials: int) -> range:
    """The numbers of the trials, at least one."""
    return range(max(1, round(num_trials * SCALE)))
