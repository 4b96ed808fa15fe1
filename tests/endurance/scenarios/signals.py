"""SIGTERM and SIGINT, once and twice, in every phase of a training."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scenarios.run_checks import CHECKPOINT, hidden_beside, load_problem, strays
from scenarios.table import Row, joined
from scenarios.training_process import OFTEN, TRAIN, Ended, seeded, start, workplace

SIGNALS = (signal.SIGTERM, signal.SIGINT)
LONGEST_STOP_SECONDS = 5.0
# A second signal needs nothing of Python; this leaves room for a busy machine.
AT_ONCE_SECONDS = 2.0
SECOND_AFTER_SECONDS = 0.05
SLOW = {"slow_part": 1.5}  # seconds of each micro-batch


class Phase(NamedTuple):
    """Where a signal arrives.

    Attributes:
        line: pattern of the line of stderr after which it is sent, within ``within_seconds``.
        faults: as fault_injection.py takes them.
        is_saved: a run must be there afterwards (True), nothing (False), or either, as far as it came (None).
        once_there: a file of the run to wait for first.
    """

    name: str
    line: str
    faults: dict[str, object]
    within_seconds: float
    is_saved: bool | None
    once_there: str = ""
    num_steps: int = 20_000


def _paused(phase: str) -> dict[str, object]:
    """Let a phase last longer than the signal takes to come, on any machine."""
    return {**OFTEN, "pause": {"phase": phase, "seconds": 2.0}}


PHASES = (
    Phase("start-up", "start-up$", _paused("reading"), 0.8, False),
    Phase("reading", "reading$", _paused("reading"), 0.9, False),
    Phase("planning", "planning$", _paused("planning"), 0.5, False),
    Phase("training, no checkpoint was due", "training$", {"checkpoints": False}, 1.0, None),
    Phase("training, about the first checkpoint", "training$", OFTEN, 0.3, None),
    Phase("training, after a checkpoint", "training$", OFTEN, 1.0, True, f"{CHECKPOINT}/manifest.json"),
    Phase("saving", "saving$", _paused("saving"), 0.5, True, num_steps=50),
    Phase("scoring", "scoring$", _paused("scoring"), 0.5, True, num_steps=50),
    Phase("slow steps, no checkpoint was due", "training$", {"checkpoints": False, **SLOW}, 3.0, None),
    Phase("slow steps, after a checkpoint", "training$", SLOW, 3.0, True, f"{CHECKPOINT}/manifest.json"),
)


def rows() -> Iterator[Row]:
    """One row for each phase, and one for second signals."""
    for phase in PHASES:
        row = Row(f"signal: {phase.name}", f"ended in {LONGEST_STOP_SECONDS:g} s; 143/130; run or nothing")
        longest = 0.0
        for number in SIGNALS:
            seconds, problem = stopped(phase, number)
            longest = max(longest, seconds)
            row.count(problem and f"{number.name}: {problem}")
        row.note = f"longest {longest:.1f} s"
        yield row
    row = Row("signal: a second one, in each phase", f"ended in {AT_ONCE_SECONDS:g} s; 143/130; run or nothing")
    for phase, number in zip(PHASES, SIGNALS * len(PHASES), strict=False):
        _, problem = stopped(phase, number, twice=True)
        row.count(problem and f"{phase.name}: {problem}")
    yield row


def stopped(phase: Phase, number: signal.Signals, twice: bool = False) -> tuple[float, str]:
    """Send a signal to a training.

    Returns:
        The seconds from the last signal to the end, and what was wrong then.
    """
    with workplace() as place:
        run = place / "run"
        process = start(*TRAIN, "--steps", phase.num_steps, "--out", run, faults=phase.faults)
        process.wait_for(phase.line)
        if phase.once_there:
            process.wait_until((run / phase.once_there).exists)
        time.sleep(seeded(f"{phase.name} {number.name} {twice}").uniform(0, phase.within_seconds))
        process.popen.send_signal(number)
        if twice:
            time.sleep(SECOND_AFTER_SECONDS)
            process.popen.send_signal(number)
        sent = time.monotonic()
        ended = process.end()
        seconds = time.monotonic() - sent
        problem = _problem_after(run, ended, number, phase.is_saved, twice)
        limit = AT_ONCE_SECONDS if twice else LONGEST_STOP_SECONDS
        return seconds, joined(f"took {seconds:.1f} s" if seconds > limit else "", problem)


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
    return joined(*problems)
