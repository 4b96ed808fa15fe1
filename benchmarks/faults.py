"""What a training survives: kills, signals, full disks, numbers that go wrong, memory that runs out,
processes of a group that are lost.

    python benchmarks/faults.py [--rows kills,resume,…] [--kills 200] [--stops 20] [--jobs 2] [--out FILE.jsonl]

Each trial is a process of its own, `timebox train` on scikit-learn's digits with a fault built in. Prints one table,
and what went wrong line by line; the exit status is 1 where any fault was not survived.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from fault_rows import disks, groups, kills, replays, steps, stops
from fault_rows.runs import Outcome

Row = Callable[[argparse.Namespace], Iterator[Outcome]]
ROWS: dict[str, Row] = {
    "kills": lambda given: kills.rows(given.kills, given.jobs),
    "resume": lambda given: stops.resumed(given.stops),
    "signals": lambda given: stops.rows(),
    "disk": lambda given: disks.rows(),
    "numbers": lambda given: steps.numbers(given.seeds),
    "memory": lambda given: steps.memory(),
    "replay": lambda given: replays.rows(),
    "groups": lambda given: groups.rows(given.group_faults),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="which ones, separated by commas")
    parser.add_argument("--kills", type=int, default=200, help="kills at random instants")
    parser.add_argument("--stops", type=int, default=20, help="random steps to resume after")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of runs with and without a wrong number")
    parser.add_argument("--group-faults", type=int, default=50, help="processes lost of two that train together")
    parser.add_argument("--jobs", type=int, default=1, help="chains of kills side by side")
    parser.add_argument("--out", type=Path, help="a JSON line for each row of the table")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := sorted(set(names) - set(ROWS)):
        parser.error(f"unknown rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    outcomes = []
    for name in names:
        for outcome in ROWS[name](given):
            outcomes.append(outcome)
            print("\n".join([line(outcome), *outcome.problems]), file=sys.stderr, flush=True)
            if given.out:
                with given.out.open("a", encoding="utf-8") as log:
                    print(json.dumps({**asdict(outcome), "survived": outcome.survived}), file=log)
    return report(outcomes)


def report(outcomes: list[Outcome]) -> int:
    """Print the table and every problem; 1 where there was any."""
    print(line(Outcome("fault", "what was checked"), "tried", "survived"))
    for outcome in outcomes:
        print(line(outcome))
    for outcome in outcomes:
        for problem in outcome.problems:
            print(f"NOT SURVIVED  {outcome.fault}: {problem}")
    return int(any(outcome.problems for outcome in outcomes))


def line(outcome: Outcome, tried: object = None, survived: object = None) -> str:
    """One line of the table."""
    counts = (
        f"{outcome.tried if tried is None else tried!s:>6}  {outcome.survived if survived is None else survived!s:>8}"
    )
    return f"{outcome.fault:<44}{counts}  {outcome.checked}{f' ({outcome.note})' if outcome.note else ''}"


if __name__ == "__main__":
    sys.exit(main())
