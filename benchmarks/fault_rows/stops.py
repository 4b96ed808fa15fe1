"""SIGTERM and SIGINT in every phase, and resuming to the same weights."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fault_rows.runs import (
    CHECKPOINT,
    OFTEN,
    TRAIN,
    Ended,
    Outcome,
    finish,
    finished_problem,
    hidden_beside,
    load_problem,
    seeded,
    start,
    strays,
    weights,
    workplace,
)

LONGEST_STOP_SECONDS = 5.0
# A second signal needs nothing of Python; this leaves room for a busy machine.
AT_ONCE_SECONDS = 1.0
STEPS = 150
SLOW_PART_SECONDS = 1.5
SLOW = {"slow_part": SLOW_PART_SECONDS}


class Phase(NamedTuple):
    """Where a signal arrives: some time after a line of stderr."""

    name: str
    line: str
    faults: dict[str, object]
    within_seconds: float
    # What must be there afterwards: a run (True), nothing (False), or whichever of the two was reached (None).
    is_saved: bool | None
    once_there: str = ""
    num_steps: int = 2000


def _paused(phase: str, **more: object) -> dict[str, object]:
    return {**OFTEN, "pause": {"phase": phase, "seconds": 0.5}, **more}


PHASES = (
    Phase("start-up", "start-up$", OFTEN, 0.8, False),
    Phase("reading", "reading$", _paused("reading"), 0.9, False),
    Phase("planning", "planning$", _paused("planning"), 0.5, False),
    Phase("training, no checkpoint was due", "training$", {"checkpoints": False}, 1.0, None),
    Phase("training, about the first checkpoint", "training$", OFTEN, 0.3, None),
    Phase("training, after a checkpoint", "training$", OFTEN, 1.0, True, f"{CHECKPOINT}/manifest.json"),
    Phase("saving", "saving$", _paused("saving"), 0.5, True, num_steps=50),
    Phase("scoring", "scoring$", _paused("scoring"), 0.5, True, num_steps=50),
    Phase("slow parts, no checkpoint was due", "training$", {"checkpoints": False, **SLOW}, 3.0, None),
    Phase("slow parts, after a checkpoint", "training$", SLOW, 3.0, True, f"{CHECKPOINT}/manifest.json"),
)


def rows(phases: tuple[Phase, ...] = PHASES) -> Iterator[Outcome]:
    """One row for each phase and for first and second signals."""
    instants = seeded("stops")
    for phase in phases:
        outcome = Outcome(f"signal: {phase.name}", f"ended in {LONGEST_STOP_SECONDS:g} s; 143/130; run or nothing")
        longest = 0.0
        for number in (signal.SIGTERM, signal.SIGINT):
            seconds, problem = _stopped(phase, number, instants)
            longest = max(longest, seconds)
            outcome.count(problem and f"{number.name}: {problem}")
        outcome.note = f"longest {longest:.1f} s"
        yield outcome
    outcome = Outcome("signal: a second one, in each phase", f"ended in {AT_ONCE_SECONDS:g} s; 143/130; run or nothing")
    for phase, number in zip(phases, (signal.SIGTERM, signal.SIGINT) * len(phases), strict=False):
        _, problem = _stopped(phase, number, instants, twice=True)
        outcome.count(problem and f"{phase.name}: {problem}")
    yield outcome


def _stopped(phase: Phase, number: signal.Signals, instants: random.Random, twice: bool = False) -> tuple[float, str]:
    """Seconds from the last signal to the end, and what was wrong then."""
    with workplace() as place:
        run = place / "run"
        process = start(*TRAIN, "--steps", phase.num_steps, "--out", run, faults=phase.faults)
        process.wait_for(phase.line)
        while phase.once_there and process.popen.poll() is None and not (run / phase.once_there).exists():
            time.sleep(0.005)
        time.sleep(instants.uniform(0, phase.within_seconds))
        process.popen.send_signal(number)
        if twice:
            time.sleep(0.05)
            process.popen.send_signal(number)
        sent = time.monotonic()
        ended = process.end()
        seconds = time.monotonic() - sent
        problem = _problem_after(run, ended, number, phase.is_saved, twice)
        limit = AT_ONCE_SECONDS if twice else LONGEST_STOP_SECONDS
        return seconds, "; ".join(filter(None, [f"took {seconds:.1f} s" if seconds > limit else "", problem]))


def _problem_after(run: Path, ended: Ended, number: int, is_saved: bool | None, twice: bool) -> str:
    problems = [f"status {ended.status}"] if ended.status != 128 + number else []
    if "Traceback" in ended.err:
        problems.append("a traceback")
    unloadable = load_problem(run)
    if is_saved is not False and not unloadable:
        problems.append(strays(run, while_writing=twice))
    elif is_saved:
        problems.append(unloadable)
    elif not twice:
        problems.append("" if ended.lines_with("nothing was saved") else f"does not say so: {ended.err[-300:]!r}")
        problems.append(f"left {[path.name for path in run.iterdir()]}" if run.exists() else "")
    elif "ended before" not in unloadable and run.exists() and any(run.iterdir()):
        problems.append(unloadable or "there is a run that should not be")
    problems.append(f"left beside it {hidden_beside(run)}" if hidden_beside(run) else "")
    return "; ".join(filter(None, problems))


def resumed(num_stops: int) -> Iterator[Outcome]:
    """Stopped at a random step, then resumed, against a run that was not."""
    outcome = Outcome(
        "resumed after a random step, --steps", "model.safetensors byte for byte that of an undisturbed run"
    )
    instants = seeded("resumed")
    with workplace() as place:
        whole = place / "whole"
        finish(*TRAIN, "--steps", STEPS, "--out", whole, faults=OFTEN)
        for number in range(num_stops):
            run = place / str(number)
            stop = {"step": instants.randrange(30, STEPS), "signal": instants.choice((signal.SIGKILL, signal.SIGTERM))}
            first = finish(*TRAIN, "--steps", STEPS, "--out", run, faults={"interval": 0.02, "stop_at": stop})
            second = finish("train", "--resume", run)
            outcome.count(
                "" if first.status == 128 + stop["signal"] else f"it was not stopped: status {first.status}",
                "" if second.status == 0 else f"status {second.status}: {second.err[-300:]}",
                "" if weights(run) == weights(whole) else f"other weights after {stop}",
                finished_problem(run, STEPS),
            )
    yield outcome
