"""One clock for a whole command: when it started, when it must end, and where the time went.

Every other module is handed a :class:`Deadline`; none reads the time by itself. Tests hand in a simulated ``now``.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from timebox.errors import BudgetError

_BUDGET = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.IGNORECASE)


def now() -> float:
    """Seconds since boot. On Linux the time a machine spends suspended counts, as it does for the user."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_IMPORTED_AT = now()


def process_start(pid: int | None = None) -> float:
    """When a process was started, on the clock of :func:`now`; this one, where no number is given.

    On Linux the kernel's own record, so that the interpreter's start and every import count. Elsewhere, or where
    ``/proc`` shows another clock than ours, the moment this module was imported.
    """
    try:
        # The second field, the command's name, may itself hold spaces and brackets; field 22 is the start time.
        fields = Path(f"/proc/{pid or 'self'}/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return _IMPORTED_AT
    return started if 0 <= _IMPORTED_AT - started < 3600 or pid else _IMPORTED_AT


def parse_budget(budget: str | float) -> float:
    """Seconds in a budget such as ``"90s"``, ``"10m"``, ``"1h30m"``, ``"1.5h"`` or a plain number of seconds.

    Raises BudgetError where the text is no duration or the duration is not above zero.
    """
    text = str(budget).strip()
    match = _BUDGET.fullmatch(text)
    if text.startswith("-") or not match or not any(match.groups()):
        problem = "is negative" if re.fullmatch(r"-[\d.]+[hms]?.*", text) else "is not a duration"
        raise BudgetError(f"budget {text!r} {problem}; write it like 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not 0 < total < float("inf"):
        raise BudgetError(f"budget {text!r} must be longer than zero; write it like 90s, 10m or 1h30m")
    return total


def format_duration(seconds: float) -> str:
    """A duration as people write it: ``9.4s``, ``42s``, ``3m20s``, ``1h05m``."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


class Deadline:
    """The budget of one command, and a record of the phases that spent it.

    Args:
        budget_seconds: length of the budget in seconds, above zero; None where steps, not time, end the work.
        started_at: when the clock began, on the clock of ``now``; None for this very moment.
        now: the clock to read, in seconds; it may start anywhere but never runs backwards.
    """

    def __init__(
        self, budget_seconds: float | None, started_at: float | None = None, now: Callable[[], float] = now
    ) -> None:
        self.budget_seconds = budget_seconds
        self._now = now
        self.started_at = now() if started_at is None else started_at
        self._open: list[str] = []
        self._since = now()
        self._phases = {"start-up": self._since - self.started_at}
        self._unnamed = "start-up"

    @classmethod
    def since_process_start(cls, budget_seconds: float | None) -> "Deadline":
        """A deadline that began when the kernel started this process: what the command line promises."""
        return cls(budget_seconds, process_start())

    def elapsed(self) -> float:
        """Seconds since the clock began."""
        return self._now() - self.started_at

    def remaining(self) -> float:
        """Seconds until the deadline, negative once it has passed; infinite without a budget."""
        return float("inf") if self.budget_seconds is None else self.budget_seconds - self.elapsed()

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.remaining() < 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Book the time spent inside under ``name``. Phases may nest: the inner one pauses the outer.

        What comes before the first phase is booked as start-up, what lies between phases as other.
        """
        self._settle()
        self._open.append(name)
        self._unnamed = "other"
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def exclude(self, seconds: float) -> None:
        """Put the clock back by seconds already spent on something the budget does not cover, in the open phase."""
        self._settle()
        self.started_at += seconds
        self._book(self._current, -seconds)

    def add_earlier_phases(self, phases: Mapping[str, float]) -> None:
        """Count time that was spent earlier, by another process, under its phases."""
        for name, seconds in phases.items():
            self._book(name, seconds)
            self.started_at -= seconds

    def phases_so_far(self) -> dict[str, float]:
        """Seconds booked under each phase up to now; together they make up the elapsed time."""
        self._settle()
        return dict(self._phases)

    def _settle(self) -> None:
        moment = self._now()
        self._book(self._current, moment - self._since)
        self._since = moment

    @property
    def _current(self) -> str:
        return self._open[-1] if self._open else self._unnamed

    def _book(self, name: str, seconds: float) -> None:
        self._phases[name] = self._phases.get(name, 0.0) + seconds
