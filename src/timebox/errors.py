"""The exceptions that timebox raises on purpose.

The command line prints each as one line on stderr and exits with status 2 (3 for :class:`OutputError` once a model has
been trained). Any other exception is a defect of timebox itself.
"""

from collections.abc import Mapping, Sequence
from math import ceil


class TimeboxError(Exception):
    """Base class. The message names the argument or file, its value, the values allowed, and what to do."""


class UsageError(TimeboxError, ValueError):
    """An argument that is unknown, out of range, or in conflict with another."""


class DataError(TimeboxError, ValueError):
    """Data that cannot be read, or that no classifier can be trained on."""


class BudgetError(UsageError):
    """A budget that is too short, negative or not a duration.

    Attributes:
        smallest_seconds: for one that is too short, a budget with which the same command works, if that is known.
    """

    smallest_seconds: int | None = None

    @classmethod
    def too_short(cls, message: str, smallest_seconds: float) -> "BudgetError":
        """An error that ends by naming a budget that is long enough, rounded up to whole seconds."""
        seconds = ceil(smallest_seconds)
        error = cls(f"{message}; use at least {seconds}s")
        error.smallest_seconds = seconds
        return error


class RunError(TimeboxError):
    """A run directory, or a file of one, that is missing or damaged."""


class OutputError(TimeboxError, OSError):
    """A file or directory that cannot be written."""


# The reason of a rank failure where the process has left none.
NO_ANSWER = "it does not answer"


class RankFailureError(TimeboxError):
    """Processes that train together have failed: ``failed_ranks`` has the reason by rank, ``lines`` a line each."""

    def __init__(self, failed_ranks: Mapping[int, str], lines: Sequence[str]) -> None:
        super().__init__(f"lost {'; '.join(lines)}")
        self.failed_ranks, self.lines = dict(failed_ranks), tuple(lines)
