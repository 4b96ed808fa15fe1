"""The errors timebox raises on purpose: one base class, few kinds.

The command line turns each into one line on stderr and exit status 2 (3 for :class:`OutputError` once a model has
been trained). Anything else that escapes is a defect of timebox itself.
"""

from collections.abc import Mapping, Sequence


class TimeboxError(Exception):
    """Something the caller must change. The message names what was given, what is allowed and what to do."""


class UsageError(TimeboxError, ValueError):
    """An argument that cannot be accepted: unknown, out of range, or in conflict with another."""


class DataError(TimeboxError, ValueError):
    """Data that cannot be read or cannot be learned from."""


class BudgetError(UsageError):
    """A budget that cannot work: too short, negative or not a duration."""


class RunError(TimeboxError):
    """A run directory that cannot be loaded."""


class OutputError(TimeboxError, OSError):
    """A place that cannot be written to."""


# What is known of a process that is gone and said nothing.
NO_ANSWER = "it does not answer"


class RankFailureError(TimeboxError):
    """Processes that train together are not all there any more.

    Attributes:
        failed_ranks: the reason of each failure, as far as it is known, by rank.
        lines: the same in words.
    """

    def __init__(self, failed_ranks: Mapping[int, str], lines: Sequence[str]) -> None:
        super().__init__(f"lost {'; '.join(lines)}")
        self.failed_ranks, self.lines = dict(failed_ranks), tuple(lines)
