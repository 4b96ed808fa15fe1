"""Runs repeated from what they recorded."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from scenarios.run_checks import summary_of, weights
from scenarios.table import Row, joined
from scenarios.training_process import OFTEN, TRAIN, Ended, finish, seeded, workplace

ONE_THREAD, TWO_THREADS = {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}
# A run that is killed starts twice, also where others compute beside it.
BUDGET, RESUMED_BUDGET = ("--budget", "20s"), ("--budget", "30s")


def rows() -> Iterator[Row]:
    """Every kind of run replayed, then replays that must be refused."""
    same = Row("replayed: clocked, resumed, rolled back, split", "model.safetensors byte for byte that of the run")
    refused = Row("replayed with fewer threads, with other data", "exit 2 with the reason on one line; nothing written")
    with workplace() as place:
        runs = [make(place) for make in RUNS]
        for run in runs:
            same.count(replayed(run))
        refused.count(refused_with_fewer_threads(two_threads_run(place)))
        refused.count(refused_with_other_data(runs[0]))
    yield same
    yield refused


def replayed(run: Path, env: dict[str, str] | None = None) -> str:
    """Replay a run; what was wrong, empty for nothing."""
    again = run.with_name(f"{run.name}-again")
    ended = finish("train", "--replay", run, "--out", again, env=env)
    problem = joined(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        "" if weights(run) and weights(again) == weights(run) else "other weights",
        "" if summary_of(again).get("identical") is True else "the summary says they differ",
    )
    return problem and f"{run.name}: {problem}"


def refused_with_fewer_threads(run: Path) -> str:
    """Replay a run of two threads with one; what was wrong, empty for a refusal as it should be."""
    again = run.with_name("fewer-threads")
    return _not_refused(finish("train", "--replay", run, "--out", again, env=ONE_THREAD), "threads", again)


def refused_with_other_data(run: Path) -> str:
    """Replay a run with one image changed; what was wrong, empty for a refusal as it should be."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    images[0] = images[1]
    data, again = run.with_name("other.npz"), run.with_name("other-data")
    np.savez(data, train_images=images, train_labels=digits.target)
    return _not_refused(finish("train", data, "--replay", run, "--out", again), "does not hold", again)


def two_threads_run(place: Path) -> Path:
    run = place / "two-threads"
    _done(finish(*TRAIN, "--steps", 50, "--out", run, env=TWO_THREADS))
    return run


def clocked_run(place: Path) -> Path:
    run = place / "clocked"
    _done(finish(*TRAIN, *BUDGET, "--out", run))
    return run


def resumed_run(place: Path) -> Path:
    run = place / "resumed"
    stop = {"step": seeded("replays").randrange(100, 200), "signal": signal.SIGKILL}
    finish(*TRAIN, *RESUMED_BUDGET, "--out", run, faults={**OFTEN, "stop_at": stop})
    _done(finish("train", "--resume", run))
    return run


def rolled_back_run(place: Path) -> Path:
    run = place / "rolled-back"
    fault = {"where": "gradient", "value": "nan", "step": 130, "lasting": False}
    _done(finish(*TRAIN, "--steps", 200, "--out", run, faults={**OFTEN, "non_finite": fault}))
    return run


def split_run(place: Path) -> Path:
    """Memory ran out for whole groups, so the normalisation was changed."""
    run = place / "split"
    fault = {"more_than": 10, "error": "runtime"}
    _done(finish(*TRAIN, "--steps", 100, "--out", run, faults={**OFTEN, "memory": fault}))
    return run


def _done(ended: Ended) -> None:
    if ended.status:
        raise RuntimeError(f"the run to be replayed ended with status {ended.status}: {ended.err[-600:]}")


RUNS = (clocked_run, resumed_run, rolled_back_run, split_run)


def _not_refused(ended: Ended, reason: str, again: Path) -> str:
    told = ended.lines_with("timebox train: error:")
    problem = joined(
        f"status {ended.status}" if ended.status != 2 else "",
        "" if len(told) == 1 and reason in told[0] else ended.err[-300:],
        "it left a directory" if again.exists() else "",
    )
    return problem and f"{reason}: {problem}"
