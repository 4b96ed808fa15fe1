"""The table of faults: a row for each kind, with how often it was tried and survived."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault, checked: what was done, and what had to hold afterwards.
        problems: a text for each trial that was not survived.
    """

    fault: str
    checked: str
    tried: int = 0
    problems: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def survived(self) -> int:
        """Trials without a problem."""
        return self.tried - len(self.problems)

    def count(self, problem: str) -> None:
        """Count one trial; an empty text is no problem."""
        self.tried += 1
        if problem:
            self.problems.append(problem)


def joined(*problems: str) -> str:
    """The problems in one text, without the empty ones."""
    return "; ".join(problem for problem in problems if problem)


def line(row: Row) -> str:
    """One line of the table."""
    return _columns(row.fault, row.tried, row.survived, f"{row.checked}{f' ({row.note})' if row.note else ''}")


def report(rows: Sequence[Row]) -> int:
    """Print the table and every problem.

    Returns:
        The exit status: 1 where there was a problem.
    """
    print(_columns("fault", "tried", "survived", "what was checked"))
    for row in rows:
        print(line(row))
    for row in rows:
        for problem in row.problems:
            print(f"NOT SURVIVED  {row.fault}: {problem}")
    return int(any(row.problems for row in rows))


def _columns(fault: str, tried: object, survived: object, checked: str) -> str:
    return f"{fault:<44}{tried!s:>6}  {survived!s:>8}  {checked}"
