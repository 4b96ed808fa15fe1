"""The clock of a command: start, deadline, and the seconds spent in each phase.

Budgets are enforced with a :class:`Deadline`, which other modules receive as an argument. Tests pass a simulated
``now``.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from timebox.errors import BudgetError

_BUDGET = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", re.IGNORECASE)


def now() -> float:
    """Seconds since boot. On Linux the time that the machine is suspended counts, as it does for the user."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


_IMPORTED_AT = now()


def process_start(pid: int | None = None) -> float:
    """Start time of a process, None for this one, on the clock of :func:`now`.

    It is asked of the system, so that the start of the interpreter and all imports count. Where the system does not
    tell, or its ``/proc`` uses another clock, it is the time at which this module was imported.
    """
    try:
        # Field 2, the command's name, may contain spaces and brackets; field 22 is the start time.
        fields = Path(f"/proc/{pid or 'self'}/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        from timebox.process_age import process_age  # ctypes is not needed on Linux

        if (age := process_age(pid or os.getpid())) is None:
            return _IMPORTED_AT
        started = now() - age
    return started if 0 <= _IMPORTED_AT - started < 3600 or pid else _IMPORTED_AT


_call_started_at: ContextVar[float | None] = ContextVar("_call_started_at", default=None)


@contextmanager
def call_started() -> Iterator[None]:
    """Within the block, the call of a public function counts as begun at its start: imports that the call causes are
    part of its budget."""
    token = _call_started_at.set(now())
    try:
        yield
    finally:
        _call_started_at.reset(token)


def parse_budget(budget: str | float) -> float:
    """Convert ``"90s"``, ``"10m"``, ``"1h30m"``, ``"1.5h"`` or a number to seconds. Raises BudgetError."""
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
    """Format a duration for people: ``9.4s``, ``42s``, ``3m20s``, ``1h05m``."""
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
    """The budget of one command, and the seconds spent in each of its phases.

    Args:
        budget_seconds: above zero; None for no deadline, where the number of steps is fixed.
        started_at: start of the budget on the clock of ``now``; None for the present time.
        now: a clock in seconds, with any zero point, that never runs backwards.

    Attributes:
        earlier_seconds: the part of the elapsed time that other processes spent.
    """

    def __init__(
        self, budget_seconds: float | None, started_at: float | None = None, now: Callable[[], float] = now
    ) -> None:
        self.budget_seconds = budget_seconds
        self._now = now
        self.started_at = now() if started_at is None else started_at
        self.earlier_seconds = 0.0
        self._open_phases: list[str] = []
        self._interval_start = now()
        self._phases = {"start-up": self._interval_start - self.started_at}
        self._default_phase = "start-up"

    @classmethod
    def since_process_start(cls, budget_seconds: float | None) -> "Deadline":
        """A deadline whose budget began when this process was started, as the command line promises."""
        return cls(budget_seconds, process_start())

    @classmethod
    def since_call(cls, budget_seconds: float | None) -> "Deadline":
        """A deadline whose budget began with the call of the public function that asks, see :func:`call_started`.

        The function must ask before it calls another one, and once.
        """
        started_at = _call_started_at.get()
        _call_started_at.set(None)  # functions called within begin their own
        return cls(budget_seconds, started_at)

    def elapsed(self) -> float:
        """Seconds since the start of the budget."""
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
        """Add the time spent inside to the phase ``name``. Phases may nest: the inner one pauses the outer.

        Time before the first phase belongs to ``start-up``, time between phases to ``other``.
        """
        self._close_interval()
        self._open_phases.append(name)
        self._default_phase = "other"
        try:
            yield
        finally:
            self._close_interval()
            self._open_phases.pop()

    def exclude(self, seconds: float) -> None:
        """Exclude seconds from the budget that the present phase has spent on work outside it, such as a download."""
        self._close_interval()
        self.started_at += seconds
        self._add(self._current_phase, -seconds)

    def add_earlier_phases(self, phases: Mapping[str, float]) -> None:
        """Add time that another process spent earlier, by phase, and move the start back by as much."""
        for name, seconds in phases.items():
            self._add(name, seconds)
            self.started_at -= seconds
            self.earlier_seconds += seconds

    def phases_so_far(self) -> dict[str, float]:
        """Seconds spent in each phase until now; their sum is the elapsed time."""
        self._close_interval()
        return dict(self._phases)

    def _close_interval(self) -> None:
        """Add the time since the last call to the present phase."""
        now = self._now()
        self._add(self._current_phase, now - self._interval_start)
        self._interval_start = now

    @property
    def _current_phase(self) -> str:
        return self._open_phases[-1] if self._open_phases else self._default_phase

    def _add(self, name: str, seconds: float) -> None:
        self._phases[name] = self._phases.get(name, 0.0) + seconds
