"""kill -9 at random instants, and at each single file operation."""

import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Lock

from fault_rows.runs import (
    LONGEST_SECONDS,
    OFTEN,
    TRAIN,
    Outcome,
    finish,
    finished_problem,
    hidden_beside,
    is_finished,
    load_problem,
    says_nothing_saved,
    seeded,
    start,
    step_of,
    strays,
    weights,
    workplace,
)

STEPS = 800
# Every third chain replaces a finished run.
OVERWRITE_EVERY = 3
# After so many kills a chain is let run to its end.
MOST_KILLS = 6


def rows(num_kills: int, jobs: int) -> Iterator[Outcome]:
    """Random instants, then every file operation there is."""
    yield from random_instants(num_kills, jobs)
    yield _file_operations(jobs, overwrite=False)
    yield _file_operations(jobs, overwrite=True)


def random_instants(num_kills: int, jobs: int, steps: int = STEPS) -> Iterator[Outcome]:
    """Kills anywhere between a start and the moment at which an undisturbed run ends."""
    outcome = Outcome(
        "kill -9 at a random instant",
        "loads and predicts or says nothing was saved; no strays; resumes; finished: same bytes as undisturbed",
    )
    with workplace() as place, ThreadPoolExecutor(jobs) as pool:
        whole = place / "whole"
        reference = finish(*TRAIN, "--steps", steps, "--out", whole, faults=OFTEN)
        if problem := finished_problem(whole, steps):
            raise RuntimeError(f"the run without faults is not whole: {problem}\n{reference.err}")
        chains = Chains(place, steps, reference.seconds, num_kills, outcome)
        list(pool.map(lambda _: chains.work(), range(jobs)))
    outcome.note = f"{chains.num_before} before the first checkpoint, {chains.num_finished} chains came to their end"
    yield outcome


class Chains:
    """Runs that are killed and resumed and killed again until they finish, several side by side."""

    def __init__(self, place: Path, steps: int, usual_seconds: float, num_kills: int, outcome: Outcome) -> None:
        self._place, self._whole, self._usual_seconds = place, place / "whole", usual_seconds
        self._steps, self._words = steps, (*TRAIN, "--steps", steps)
        self._left, self._numbers, self._lock = num_kills, count(), Lock()
        self._outcome = outcome
        self.num_before = self.num_finished = 0

    def work(self) -> None:
        """Take up one chain after the other until all kills are spent."""
        while self._left > 0:
            with self._lock:
                number = next(self._numbers)
            instants = seeded(f"chain {number}")
            folder = self._place / f"chain-{number}"
            folder.mkdir()
            if number % OVERWRITE_EVERY == OVERWRITE_EVERY - 1:
                self._replace(folder / "run", instants)
            else:
                self._follow(folder / "run", instants)
            shutil.rmtree(folder)

    def _follow(self, run: Path, instants: random.Random) -> None:
        words: tuple[object, ...] = (*self._words, "--out", run)
        came = -1
        for number in count():
            process = start(*words, faults=OFTEN)
            if not process.is_running_after(self._instant(instants, number)):
                self._finished(run, process.end().err)
                return
            process.popen.kill()
            process.end()
            problem = load_problem(run)
            stray = strays(run, while_writing=True)
            nothing = says_nothing_saved(problem, run)
            step = -1 if nothing else step_of(run)
            lost = f"went back from step {came} to {step}" if step < came and not is_finished(run) else ""
            came = max(came, step)
            self._count(nothing, "" if nothing else problem, stray, lost)
            if is_finished(run):
                return
            # Nothing was saved: what is left can be begun anew in its place.
            words = (*self._words, "--out", run, "--overwrite") if nothing else ("train", "--resume", run)

    def _replace(self, run: Path, instants: random.Random) -> None:
        """Overwrite a finished run with one of another seed, killed until it comes through."""
        shutil.copytree(self._whole, run)
        old = weights(run)
        for number in count():
            process = start(*self._words, "--seed", 1, "--out", run, "--overwrite", faults=OFTEN)
            if not process.is_running_after(self._instant(instants, number)):
                ended = process.end()
                beside = hidden_beside(run)
                with self._lock:
                    self.num_finished += 1
                    if problem := finished_problem(run, self._steps) or (f"left beside it {beside}" if beside else ""):
                        self._outcome.problems.append(f"a finished replacement: {problem}; {ended.err[-200:]}")
                return
            process.popen.kill()
            process.end()
            whole = weights(run) == old or (is_finished(run) and not finished_problem(run, self._steps))
            beside = hidden_beside(run)
            self._count(
                False,
                "" if whole else "neither the old run nor the new one is whole",
                load_problem(run),
                f"left beside it {beside}" if len(beside) > 1 else "",
            )
            if weights(run) != old:
                return

    def _instant(self, instants: random.Random, number: int) -> float:
        """Seconds after which a chain is killed for the next time."""
        over = number == MOST_KILLS or self._left <= 0
        return LONGEST_SECONDS if over else instants.uniform(0, self._usual_seconds)

    def _finished(self, run: Path, err: str) -> None:
        problem = finished_problem(run, self._steps)
        if not problem and weights(run) != weights(self._whole):
            problem = "other weights than undisturbed"
        with self._lock:
            self.num_finished += 1
            if problem:
                self._outcome.problems.append(f"a finished chain: {problem}; {err[-200:]}")

    def _count(self, before: bool, *problems: str) -> None:
        with self._lock:
            self._left -= 1
            self.num_before += before
            self._outcome.count(*problems)


def _file_operations(jobs: int, overwrite: bool) -> Outcome:
    """Kill a run at its first file operation, another at its second, and so on to the last."""
    outcome = Outcome(
        f"kill -9 at each file operation{', overwriting' if overwrite else ''}",
        "as above; then begun anew or resumed to its end",
    )
    with workplace() as place, ThreadPoolExecutor(jobs) as pool:
        whole = place / "whole"
        finish(*TRAIN, "--steps", 20, "--out", whole, faults=OFTEN)

        def trial(number: int) -> tuple[bool, str]:
            return _killed_at(number, place / str(number) / "run", whole if overwrite else None)

        for first in count(1, jobs):
            results = list(pool.map(trial, range(first, first + jobs)))
            for _, problem in (result for result in results if result[0]):
                outcome.count(problem and f"operation {first}…{first + jobs - 1}: {problem}")
            if not all(killed for killed, _ in results):
                return outcome
    raise AssertionError("unreachable")


def _killed_at(number: int, run: Path, replaced: Path | None) -> tuple[bool, str]:
    """Whether there was an operation of that number to be killed at, and what was wrong afterwards."""
    run.parent.mkdir()
    if replaced:
        shutil.copytree(replaced, run)
    words = (*TRAIN, "--steps", 20, "--out", run)
    again = ("--seed", 1, "--overwrite") if replaced else ()
    faults = {"interval": 0.02, "kill_at": {"number": number, "under": str(run.parent)}}
    ended = finish(*words, *again, faults=faults)
    if ended.status != 128 + signal.SIGKILL:
        return False, ""
    problem, stray = load_problem(run), strays(run, while_writing=True)
    nothing = says_nothing_saved(problem, run)
    if replaced and nothing:
        return True, f"neither the old run nor the new one is there, but {hidden_beside(run)}"
    if problem and not nothing:
        return True, problem
    over = is_finished(run) and not replaced
    if not over:
        resumed = not nothing and not replaced
        ended = finish(*(("train", "--resume", run) if resumed else (*words, "--seed", 1, "--overwrite")))
        if ended.status:
            return True, f"cannot go on: {ended.err.splitlines()[-1]}"
        stray = stray or finished_problem(run, 20)
        stray = stray or ", ".join(hidden_beside(run))
    return True, stray
