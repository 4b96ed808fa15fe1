"""What a training survives: kills, signals, full disks, NaN, too little memory, ranks that fail.

    python tests/endurance/faults.py [--rows kills,resume,…] [--kills 200] [--stops 20] [--jobs 2] [--out FILE.jsonl]

The scenarios of the tests beside this file, many more times, for a record. Each trial is a process of its own, `timebox
train` on scikit-learn's digits with a fault injected. Prints one table, and what went wrong line by line; the exit
status is 1 where any fault was not survived.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from scenarios import disks, kills, non_finite, out_of_memory, rank_failures, replays, resuming, signals
from scenarios.table import Row, line, report

ROWS: dict[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
    "kills": lambda given: kills.rows(given.kills, given.jobs),
    "resume": lambda given: resuming.rows(given.stops),
    "signals": lambda given: signals.rows(),
    "disk": lambda given: disks.rows(),
    "numbers": lambda given: non_finite.rows(given.seeds),
    "memory": lambda given: out_of_memory.rows(),
    "replay": lambda given: replays.rows(),
    "groups": lambda given: rank_failures.rows(given.group_faults),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default=",".join(ROWS), help="which ones, separated by commas")
    parser.add_argument("--kills", type=int, default=200, help="kills at random instants, at least")
    parser.add_argument("--stops", type=int, default=20, help="random steps to resume after")
    parser.add_argument("--seeds", type=int, default=5, help="pairs of runs with and without NaN or infinity")
    parser.add_argument("--group-faults", type=int, default=50, help="failures of one of two ranks")
    parser.add_argument("--jobs", type=int, default=1, help="chains of kills side by side")
    parser.add_argument("--out", type=Path, help="a JSON line for each row of the table")
    given = parser.parse_args()
    names = given.rows.split(",")
    if unknown := sorted(set(names) - set(ROWS)):
        parser.error(f"unknown rows {', '.join(unknown)}; there are {', '.join(ROWS)}")
    rows = []
    for name in names:
        for row in ROWS[name](given):
            rows.append(row)
            print("\n".join([line(row), *row.problems]), file=sys.stderr, flush=True)
            if given.out:
                with given.out.open("a", encoding="utf-8") as log:
                    print(json.dumps({**asdict(row), "survived": row.survived}), file=log)
    return report(rows)


if __name__ == "__main__":
    sys.exit(main())
