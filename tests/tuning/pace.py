"""Searches whose phases end by their results instead of the clock.

A search always uses its whole budget. Here each phase ends as soon as the test has the trials it needs, long before the
deadline: a test takes half a minute on a fast machine and passes on a slow one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from timebox.pipelines import train
from timebox.run import Run
from timebox.tuning import search_runner
from timebox.tuning.search_runner import SearchRunner
from timebox.tuning.study import SearchTrial
from timebox.tuning.worker import SLACK_SECONDS

Lines = Sequence[SearchTrial]
Enough = Callable[[Lines], bool]
# Seconds until the end of a phase, never reached.
FAR_AWAY = 1000.0
# Steps of the final run.
FINAL_STEPS = 20


def num_measured(lines: Lines) -> int:
    """Number of trials that did not fail."""
    return sum(line.state != "failed" for line in lines)


def end_early(monkeypatch: pytest.MonkeyPatch, enough: Enough, trial_seconds: float) -> None:
    """Run trials until ``enough`` returns True, repeat one top trial, check it, and train the winner for 20 steps."""

    def seconds_to(self: SearchRunner, share: float) -> float:
        if share == search_runner.TRIALS_END:
            return 0.0 if enough(self._lines) else FAR_AWAY
        return FAR_AWAY if share == search_runner.REPEATS_END else 2 * (trial_seconds + SLACK_SECONDS)

    def short_train(*data: str, **options: Any) -> Run:
        clocks = ("deadline", "budget")
        steps = {} if "resume" in options else {"steps": FINAL_STEPS}
        return train(*data, **{name: value for name, value in options.items() if name not in clocks}, **steps)

    monkeypatch.setattr(SearchRunner, "_seconds_to", seconds_to)
    monkeypatch.setattr(search_runner, "train", short_train)
    monkeypatch.setattr(search_runner, "MAX_REPEATS", 1)
    monkeypatch.setattr(search_runner, "NUM_TOP_TRIALS", 1)
