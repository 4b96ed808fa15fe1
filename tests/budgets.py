"""Budgets in tests that read the real clock.

No test may depend on how fast the machine is. A budget that is too short for this machine, as busy as it is, is
refused with the smallest that would do, and that one then works: this is what timebox promises, and what tests rely on.
"""

import re
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from timebox.cli.exit_status import REFUSED
from timebox.clock import parse_budget
from timebox.errors import BudgetError

Result = TypeVar("Result")
Completed = subprocess.CompletedProcess[str]
# The machine may become busier between two attempts, so the smallest budget is asked for with so much room.
ROOM = 2.0


def smallest_named(refusal: str) -> float:
    """The budget in seconds that a refusal says would do."""
    match = re.search(r"at least ([\d.hms]*\d[hms]?)", refusal)
    assert match, f"the refusal names no budget that would do: {refusal}"
    return parse_budget(match[1])


def _larger(seconds: float, refusal: str) -> float:
    """A budget to try after a refusal, which may not know how long all of the reading takes."""
    return ROOM * (seconds if "use a longer budget" in refusal else smallest_named(refusal))


def within_budget(call: Callable[[float], Result], seconds: float) -> tuple[Result, float]:
    """Call with a budget, and where that is refused with the one that the refusal names; the result and the budget."""
    try:
        return call(seconds), seconds
    except BudgetError as refusal:
        larger = _larger(seconds, str(refusal))
        return call(larger), larger


def run_within_budget(command: Sequence[str], seconds: float, **options: Any) -> tuple[Completed, float]:
    """The same for a command, which is given ``--budget`` last: how it ended, and its budget."""

    def run(budget: float) -> Completed:
        words = [*command, "--budget", f"{budget:g}s"]
        return subprocess.run(words, capture_output=True, text=True, check=False, **options)

    done = run(seconds)
    if done.returncode == REFUSED or "is too short" in done.stderr:  # torchrun has a status of its own
        seconds = _larger(seconds, done.stderr)
        done = run(seconds)
    return done, seconds
