"""Searches that are killed at random instants, workers and all, and resumed: is any trial lost?

    python tests/endurance/search_kills.py [--kills 20] [--budget 240] [--out FILE.jsonl]

Each search, on scikit-learn's digits with two workers, is killed with -9 up to five times and then left to end. After
each kill the study must load and still hold every complete trial as it was. At the end too, and no trial may be left
running, and the search must be in time. Trials that were cut off and not repeated, for want of time, are counted.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from timebox.tuning.storage import open_storage

JOURNAL = "journal.log"
KILLS_OF_ONE = 5
# Starting takes four seconds, a trial two or six.
SHORTEST_LIFE, LONGEST_LIFE = 5.0, 22.0
# A search that does not begin is not waited for any longer.
LONGEST_START_SECONDS = 120.0
POLL_SECONDS = 0.02
Complete = Mapping[int, tuple[Sequence[float], str]]


@dataclass(frozen=True)
class Kill:
    """One kill: when, how many trials were complete by then, and what was wrong with the study afterwards."""

    search: int
    after_seconds: float
    done: int
    problem: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--budget", type=float, default=240.0, help="seconds, of each search (%(default)s)")
    parser.add_argument("--out", type=Path, help="a JSON line for each kill and each search")
    given = parser.parse_args()
    chance, left, number, problems = random.Random("timebox searches"), given.kills, 0, 0
    while left > 0:
        with tempfile.TemporaryDirectory() as folder:
            kills, end = searched(number, min(left, KILLS_OF_ONE), given.budget, chance, Path(folder) / "tune")
        left, number = left - len(kills), number + 1
        for line in [*(vars(kill) for kill in kills), end]:
            problems += bool(line["problem"])
            print(json.dumps(line), flush=True)
            if given.out:
                with given.out.open("a", encoding="utf-8") as log:
                    print(json.dumps(line), file=log)
    return int(problems > 0)


def searched(
    number: int, num_kills: int, budget: float, chance: random.Random, out: Path
) -> tuple[list[Kill], dict[str, object]]:
    """One search, killed so many times and then left to end: the kills, and what came of it."""
    words = ["tune", "digits", "--budget", f"{budget}s", "--trial-budget", "6s", "--workers", "2", "--out", str(out)]
    kills: list[Kill] = []
    before: Complete = {}
    started_at = time.monotonic()
    for _ in range(num_kills):
        seconds = chance.uniform(SHORTEST_LIFE, LONGEST_LIFE)
        process = started(words)
        if not kills:
            wait_for(out / JOURNAL, process)
        try:
            process.wait(seconds)
            break  # it ended before
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        try:
            complete = complete_in(out)
            problem = lost(before, complete)
            before = complete
        except Exception as error:  # a study that does not load is what this looks for
            problem = f"{type(error).__name__}: {error}"
        kills.append(Kill(number, round(seconds, 2), len(before), problem))
        words = ["tune", "--resume", str(out)]
        started_at = time.monotonic()
    else:
        process = started(words)
        process.wait(2 * budget)
    return kills, ending(number, out, before, process.returncode, time.monotonic() - started_at)


def ending(number: int, out: Path, before: Complete, status: int, seconds: float) -> dict[str, object]:
    """How a search ended."""
    summary = json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else {}
    trials = study_of(out).trials
    cut_off = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
    failed = {trial.number for trial in trials if trial.state == TrialState.FAIL}
    again = {trial.system_attrs.get("failed_trial") for trial in trials}
    problems = [
        lost(before, complete_in(out)),
        f"trials {cut_off} are still running" if cut_off else "",
        "" if status == 0 else f"exit {status}",
        "" if summary.get("late") is False else "late, or no summary",
    ]
    return {
        "search": number, "status": status, "seconds_after_the_last_kill": round(seconds, 1), "trials": len(trials),
        "cut_off": len(failed), "not_done_again": len(failed - again),
        "elapsed_seconds": summary.get("elapsed_seconds"), "problem": "; ".join(filter(None, problems)),
    }  # fmt: skip


def started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A search with its workers in a process group of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-m", "timebox", *words], start_new_session=True, **quiet)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Poll for a file; RuntimeError where the search ends, or hangs, without writing it."""
    started = time.monotonic()
    while not path.exists():
        if process.poll() is not None or time.monotonic() - started > LONGEST_START_SECONDS:
            process.kill()
            raise RuntimeError(f"the search did not begin: {path.name} was not written, exit status {process.poll()}")
        time.sleep(POLL_SECONDS)


def study_of(out: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=open_storage(str(out / JOURNAL)))


def complete_in(out: Path) -> Complete:
    """The complete trials: their values and their parameters."""
    complete = [trial for trial in study_of(out).trials if trial.state == TrialState.COMPLETE]
    return {trial.number: (trial.values, json.dumps(trial.params, sort_keys=True)) for trial in complete}


def lost(before: Complete, after: Complete) -> str:
    """Which complete trials are not there any more as they were; empty for none."""
    gone = [number for number, trial in before.items() if after.get(number) != trial]
    return f"trials {gone} are lost" if gone else ""


if __name__ == "__main__":
    sys.exit(main())
