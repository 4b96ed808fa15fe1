"""kill -9 at random instants, and at each single file operation."""

import random
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock

from scenarios.run_checks import (
    finished_problem,
    hidden_beside,
    is_finished,
    load_problem,
    says_nothing_saved,
    step_of,
    strays,
    weights,
)
from scenarios.table import Row, joined
from scenarios.training_process import LONGEST_SECONDS, OFTEN, TRAIN, finish, seeded, start, workplace

STEPS, FEW_STEPS = 800, 20
# Every third chain replaces a finished run.
OVERWRITE_EVERY = 3
# After so many kills a chain is let run to its end.
MOST_KILLS = 6


@dataclass(frozen=True)
class Undisturbed:
    """A finished run without faults, and the seconds it took."""

    run: Path
    steps: int
    seconds: float


@dataclass
class Chain:
    """A training that is killed, resumed and killed again until it finishes.

    Attributes:
        kills: what was wrong after each kill, an empty text for nothing.
        num_before: kills before anything was saved.
        is_at_end: whether it was let come to its end; ``end_problem``: what was wrong then.
    """

    kills: list[str] = field(default_factory=list)
    num_before: int = 0
    is_at_end: bool = False
    end_problem: str = ""


def undisturbed(run: Path, steps: int) -> Undisturbed:
    """Train once without faults."""
    ended = finish(*TRAIN, "--steps", steps, "--out", run, faults=OFTEN)
    if problem := finished_problem(run, steps):
        raise RuntimeError(f"the run without faults is not whole: {problem}\n{ended.err}")
    return Undisturbed(run, steps, ended.seconds)


def rows(num_kills: int, jobs: int) -> Iterator[Row]:
    """Random instants, then every file operation there is."""
    yield _random_instants(num_kills, jobs)
    for overwrite in (False, True):
        with workplace() as place:
            yield at_file_operations(place, overwrite, jobs=jobs)


def _random_instants(num_kills: int, jobs: int) -> Row:
    """Chains until at least so many kills are made, several chains side by side."""
    row = Row(
        "kill -9 at a random instant",
        "loads and predicts or says nothing was saved; no strays; resumes; finished: same bytes as undisturbed",
    )
    chains, numbers, lock = list[Chain](), count(), Lock()
    with workplace() as place, ThreadPoolExecutor(jobs) as pool:
        reference = undisturbed(place / "whole", STEPS)

        def work(_: int) -> None:
            while row.tried < num_kills:
                with lock:
                    number = next(numbers)
                chain = killed_chain(place / f"chain-{number}", number, reference)
                with lock:
                    chains.append(chain)
                    for problem in chain.kills:
                        row.count(problem)
                    if chain.end_problem:
                        row.problems.append(chain.end_problem)

        list(pool.map(work, range(jobs)))
    num_before = sum(chain.num_before for chain in chains)
    num_ends = sum(chain.is_at_end for chain in chains)
    row.note = f"{num_before} before the first checkpoint, {num_ends} chains came to their end"
    return row


def killed_chain(folder: Path, number: int, reference: Undisturbed) -> Chain:
    """Kill a training at random instants until it finishes: between its start and when an undisturbed one ends.

    Args:
        folder: made here, and removed afterwards.
        number: of the chain; decides its instants, and whether it overwrites a finished run.
    """
    folder.mkdir()
    instants = seeded(f"chain {number}")
    overwrites = number % OVERWRITE_EVERY == OVERWRITE_EVERY - 1
    chain = (_overwritten if overwrites else _resumed)(folder / "run", reference, instants)
    shutil.rmtree(folder)
    return chain


def _resumed(run: Path, reference: Undisturbed, instants: random.Random) -> Chain:
    chain, reached = Chain(), -1
    words: tuple[object, ...] = (*TRAIN, "--steps", reference.steps, "--out", run)
    while True:
        process = start(*words, faults=OFTEN)
        if not process.is_running_after(_instant(chain, reference, instants)):
            err, problem = process.end().err, finished_problem(run, reference.steps)
            if not problem and weights(run) != weights(reference.run):
                problem = "other weights than undisturbed"
            chain.is_at_end, chain.end_problem = True, problem and f"a finished chain: {problem}; {err[-200:]}"
            return chain
        process.popen.kill()
        process.end()
        problem = load_problem(run)
        nothing = says_nothing_saved(problem, run)
        step = -1 if nothing else step_of(run)
        went_back = f"went back from step {reached} to {step}" if step < reached and not is_finished(run) else ""
        reached = max(reached, step)
        chain.num_before += nothing
        chain.kills.append(joined("" if nothing else problem, strays(run, while_writing=True), went_back))
        if is_finished(run):
            return chain
        # Nothing was saved: what is left can be begun anew in its place.
        begin = (*TRAIN, "--steps", reference.steps, "--out", run, "--overwrite")
        words = begin if nothing else ("train", "--resume", run)


def _overwritten(run: Path, reference: Undisturbed, instants: random.Random) -> Chain:
    """Overwrite a finished run with one of another seed, killed until it comes through."""
    chain = Chain()
    shutil.copytree(reference.run, run)
    old = weights(run)
    words = (*TRAIN, "--steps", reference.steps, "--seed", 1, "--out", run, "--overwrite")
    while weights(run) == old:
        process = start(*words, faults=OFTEN)
        if not process.is_running_after(_instant(chain, reference, instants)):
            err, beside = process.end().err, hidden_beside(run)
            problem = finished_problem(run, reference.steps) or (f"left beside it {beside}" if beside else "")
            chain.is_at_end, chain.end_problem = True, problem and f"a finished replacement: {problem}; {err[-200:]}"
            return chain
        process.popen.kill()
        process.end()
        whole = weights(run) == old or (is_finished(run) and not finished_problem(run, reference.steps))
        beside = hidden_beside(run)
        problem = joined(
            "" if whole else "neither the old run nor the new one is whole",
            load_problem(run),
            f"left beside it {beside}" if len(beside) > 1 else "",
        )
        chain.kills.append(problem)
    return chain


def _instant(chain: Chain, reference: Undisturbed, instants: random.Random) -> float:
    """Seconds after which a chain is killed for the next time."""
    return LONGEST_SECONDS if len(chain.kills) == MOST_KILLS else instants.uniform(0, reference.seconds)


def at_file_operations(place: Path, overwrite: bool, every: int = 1, jobs: int = 1) -> Row:
    """Kill a run at its first file operation, another at a later one, and so on to the last.

    Args:
        overwrite: whether the run replaces a finished one.
        every: 3 for the first, the fourth, the seventh operation, …
        jobs: trials side by side.
    """
    row = Row(
        f"kill -9 at each file operation{', overwriting' if overwrite else ''}",
        "as above; then begun anew or resumed to its end",
    )
    whole = undisturbed(place / "whole", FEW_STEPS).run if overwrite else None

    def trial(number: int) -> tuple[int, str | None]:
        return number, _killed_at(number, place / str(number) / "run", whole)

    with ThreadPoolExecutor(jobs) as pool:
        for first in count(1, jobs * every):
            for number, problem in pool.map(trial, range(first, first + jobs * every, every)):
                if problem is None:
                    return row
                row.count(problem and f"operation {number}: {problem}")
    raise AssertionError("unreachable")


def _killed_at(number: int, run: Path, replaced: Path | None) -> str | None:
    """What was wrong after a kill at the file operation of that number; None where there are fewer."""
    run.parent.mkdir()
    if replaced:
        shutil.copytree(replaced, run)
    words = (*TRAIN, "--steps", FEW_STEPS, "--out", run)
    again = ("--seed", 1, "--overwrite") if replaced else ()
    faults = {"interval": 0.02, "kill_at": {"number": number, "under": str(run.parent)}}
    if finish(*words, *again, faults=faults).status != 128 + signal.SIGKILL:
        return None
    problem, stray = load_problem(run), strays(run, while_writing=True)
    nothing = says_nothing_saved(problem, run)
    if replaced and nothing:
        return f"neither the old run nor the new one is there, but {hidden_beside(run)}"
    if problem and not nothing:
        return problem
    if is_finished(run) and not replaced:
        return stray
    resumed = not nothing and not replaced
    ended = finish(*(("train", "--resume", run) if resumed else (*words, "--seed", 1, "--overwrite")))
    if ended.status:
        return f"cannot go on: {ended.err.splitlines()[-1]}"
    return stray or finished_problem(run, FEW_STEPS) or ", ".join(hidden_beside(run))
