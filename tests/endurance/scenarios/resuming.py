"""Trainings that are stopped at a step and resumed, to the same weights."""

import signal
from collections.abc import Iterator
from pathlib import Path

from scenarios.run_checks import finished_problem, weights
from scenarios.table import Row, joined
from scenarios.training_process import OFTEN, TRAIN, finish, seeded, workplace

STEPS = 150


def rows(num_stops: int) -> Iterator[Row]:
    """Stopped at random steps."""
    row = Row("resumed after a random step, --steps", "model.safetensors byte for byte that of an undisturbed run")
    with workplace() as place:
        whole = place / "whole"
        finish(*TRAIN, "--steps", STEPS, "--out", whole, faults=OFTEN)
        for number in range(num_stops):
            row.count(resumed(place / str(number), number, weights(whole)))
    yield row


def resumed(run: Path, number: int, expected: bytes) -> str:
    """Stop a training at a random step and resume it; what was wrong, empty for nothing.

    Args:
        number: decides the step, and whether SIGKILL or SIGTERM stops it.
        expected: the weights of an undisturbed run.
    """
    chance = seeded(f"resumed {number}")
    stop = {"step": chance.randrange(30, STEPS), "signal": chance.choice((signal.SIGKILL, signal.SIGTERM))}
    first = finish(*TRAIN, "--steps", STEPS, "--out", run, faults={"interval": 0.02, "stop_at": stop})
    second = finish("train", "--resume", run)
    return joined(
        "" if first.status == 128 + stop["signal"] else f"it was not stopped: status {first.status}",
        "" if second.status == 0 else f"status {second.status}: {second.err[-300:]}",
        "" if weights(run) == expected else f"other weights after {stop}",
        finished_problem(run, STEPS),
    )
