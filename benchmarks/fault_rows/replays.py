"""Runs repeated from what they recorded."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from fault_rows.runs import OFTEN, TRAIN, Outcome, finish, seeded, summary_of, weights, workplace

BUDGET = ("--budget", "12s")


def rows(short: bool = False) -> Iterator[Outcome]:
    same = Outcome("replayed: clocked, resumed, rolled back, split", "model.safetensors byte for byte that of the run")
    refused = Outcome(
        "replayed with other threads, with other data", "exit 2 with the reason on one line; nothing written"
    )
    with workplace() as place:
        runs = (
            [_rolled_back(place)] if short else [_clocked(place), _resumed(place), _rolled_back(place), _split(place)]
        )
        for run in runs:
            again = run.with_name(f"{run.name}-again")
            ended = finish("train", "--replay", run, "--out", again)
            same.count(
                f"{run.name}: status {ended.status}: {ended.err[-300:]}" if ended.status else "",
                "" if weights(run) and weights(again) == weights(run) else f"{run.name}: other weights",
                "" if summary_of(again).get("identical") is True else f"{run.name}: the summary says they differ",
            )
        _refuse(refused, runs[0], place, short)
    yield same
    yield refused


def _clocked(place: Path) -> Path:
    run = place / "clocked"
    finish(*TRAIN, *BUDGET, "--out", run)
    return run


def _resumed(place: Path) -> Path:
    run = place / "resumed"
    stop = {"step": seeded("replays").randrange(100, 200), "signal": signal.SIGKILL}
    finish(*TRAIN, *BUDGET, "--out", run, faults={**OFTEN, "stop_at": stop})
    finish("train", "--resume", run)
    return run


def _rolled_back(place: Path) -> Path:
    run = place / "rolled-back"
    fault = {"where": "gradient", "value": "nan", "step": 130, "lasting": False}
    finish(*TRAIN, "--steps", 200, "--out", run, faults={**OFTEN, "numbers": fault})
    return run


def _split(place: Path) -> Path:
    """Memory ran out for whole groups, so the normalisation was changed."""
    run = place / "split"
    finish(*TRAIN, "--steps", 100, "--out", run, faults={**OFTEN, "memory": {"more_than": 10, "error": "runtime"}})
    return run


def _refuse(refused: Outcome, run: Path, place: Path, short: bool) -> None:
    def check(words: tuple[object, ...], reason: str, env: dict[str, str] | None = None) -> None:
        again = place / f"refused-{refused.tried}"
        ended = finish("train", *words, "--replay", run, "--out", again, env=env)
        told = ended.lines_with("timebox train: error:")
        refused.count(
            f"{reason}: status {ended.status}" if ended.status != 2 else "",
            "" if len(told) == 1 and reason in told[0] else f"{reason}: {ended.err[-300:]}",
            f"{reason}: it left a directory" if again.exists() else "",
        )

    if not short and (os.cpu_count() or 1) > 1:
        check((), "threads", {"OMP_NUM_THREADS": "2"})
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    images[0] = images[1]
    other = place / "other.npz"
    np.savez(other, train_images=images, train_labels=digits.target)
    check((other,), "does not hold")
