"""Disks that are full, read-only or fail midway."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_rows.runs import (
    CHECKPOINT,
    OFTEN,
    TRAIN,
    Ended,
    Outcome,
    Process,
    finish,
    finished_problem,
    load_problem,
    start,
    step_of,
    strays,
    weights,
    workplace,
)

STEPS = 250
WORDS = (*TRAIN, "--steps", STEPS)
TMPFS_MEGABYTES = 4
IN_CHECKPOINT = "/checkpoint/*"
UNWRITTEN = "the checkpoint could not be written"

Failure = tuple[str, str, int, bool, int, str]
# call, files, at the n-th, from then on, bytes that still arrive, error
CHECKPOINT_FAILURES: tuple[Failure, ...] = (
    ("write", f"{IN_CHECKPOINT}.safetensors.tmp", 2, False, 1000, "ENOSPC"),
    ("write", f"{IN_CHECKPOINT}.safetensors.tmp", 3, True, 0, "ENOSPC"),
    ("write", f"{IN_CHECKPOINT}manifest.json.tmp", 2, False, 10, "ENOSPC"),
    ("fsync", f"{IN_CHECKPOINT}.tmp", 3, False, 0, "ENOSPC"),
    ("fsync", f"{IN_CHECKPOINT}.tmp", 4, True, 0, "EIO"),
    ("replace", f"{IN_CHECKPOINT}.safetensors", 2, False, 0, "ENOSPC"),
    ("replace", f"{IN_CHECKPOINT}manifest.json", 3, True, 0, "EROFS"),
    ("open", f"{IN_CHECKPOINT}.tmp", 4, True, 0, "EROFS"),
    ("open", f"{IN_CHECKPOINT}.tmp", 4, False, 0, "EACCES"),
    ("os.write", "/metrics.jsonl", 2, False, 0, "ENOSPC"),
)
FIRST_CHECKPOINT_FAILURES: tuple[Failure, ...] = (
    ("write", f"{IN_CHECKPOINT}.safetensors.tmp", 1, False, 1000, "ENOSPC"),
    ("write", "/.model.json.tmp", 1, False, 10, "ENOSPC"),
    ("os.write", "/metrics.jsonl", 1, False, 0, "ENOSPC"),
)
FINAL_FAILURES: tuple[Failure, ...] = (
    ("write", "/.model.safetensors.tmp", 1, True, 1000, "ENOSPC"),
    ("fsync", "/.model.safetensors.tmp", 1, True, 0, "EIO"),
    ("replace", "/model.safetensors", 1, True, 0, "EROFS"),
    ("write", "/.predictions.npz.tmp", 1, True, 10, "ENOSPC"),
    ("write", "/.summary.json.tmp", 1, True, 10, "ENOSPC"),
    ("open", "/.summary.json.tmp", 1, True, 0, "EROFS"),
)


def rows(short: bool = False) -> Iterator[Outcome]:
    """Injected failures, then a small disk of its own where this process may mount one.

    A mount cannot turn read-only while files on it are open for writing, so EROFS is injected.
    """
    with workplace() as place:
        whole = place / "whole"
        finish(*WORDS, "--out", whole, faults=OFTEN)
        picked = CHECKPOINT_FAILURES[4:5] if short else (*CHECKPOINT_FAILURES, *FIRST_CHECKPOINT_FAILURES)
        yield _checkpoint_fails(place, weights(whole), picked)
        yield _final_save_fails(place, FINAL_FAILURES[:1] if short else FINAL_FAILURES)
        if not short:
            yield _small_disk(place, weights(whole))


def _injected(failure: Failure) -> dict[str, object]:
    return {**OFTEN, "files": [dict(zip(("call", "name", "at", "lasting", "after", "errno"), failure, strict=True))]}


def _checkpoint_fails(place: Path, expected: bytes, failures: tuple[Failure, ...]) -> Outcome:
    outcome = Outcome(
        "a checkpoint cannot be written", "trains on to the same weights; told once; the one before loads; exit 3"
    )
    for number, failure in enumerate(failures):
        run = place / f"checkpoint-{number}"
        process = start(*WORDS, "--out", run, faults=_injected(failure))
        problem = _intact_meanwhile(process, run) if failure not in FIRST_CHECKPOINT_FAILURES else ""
        ended = process.end()
        problems = (problem, _told_once(ended), finished_problem(run, STEPS), _same(run, expected))
        outcome.count(*(text and f"{failure[:3]}: {text}" for text in problems))
    return outcome


def _final_save_fails(place: Path, failures: tuple[Failure, ...]) -> Outcome:
    outcome = Outcome("the final save cannot be written", "the model, or the last checkpoint, loads; one line; exit 3")
    for number, failure in enumerate(failures):
        run = place / f"final-{number}"
        ended = finish(*WORDS, "--out", run, faults=_injected(failure))
        errors = ended.lines_with(" cannot be written in ")
        problems = (
            f"status {ended.status}" if ended.status != 3 else "",
            f"told {len(errors)} times: {ended.err[-300:]}" if len(errors) != 1 else "",
            load_problem(run),
            strays(run, while_writing=False),
        )
        outcome.count(*(text and f"{failure[:3]}: {text}" for text in problems))
    return outcome


def _intact_meanwhile(process: Process, run: Path) -> str:
    """What is wrong with the checkpoint on disk while the training goes on after a write has failed."""
    if not process.wait_for(UNWRITTEN):
        return "no failure was told while it trained"
    return load_problem(run) if step_of(run) > 0 else "no checkpoint is left"


def _told_once(ended: Ended) -> str:
    told = ended.lines_with(UNWRITTEN)
    return "; ".join(
        filter(
            None,
            [
                f"status {ended.status}: {ended.err[-300:]}" if ended.status != 3 else "",
                f"told {len(told)} times" if len(told) != 1 else "",
            ],
        )
    )


def _same(run: Path, expected: bytes) -> str:
    return "" if weights(run) == expected else "other weights than undisturbed"


def _small_disk(place: Path, expected: bytes) -> Outcome:
    outcome = Outcome(
        "the disk is full (a small tmpfs)",
        "the checkpoint before loads; freed in time: whole; not freed: it loads; exit 3",
    )
    for is_freed in (True, False):
        with _mounted(place / f"disk-{is_freed}") as disk:
            if not disk:
                outcome.note = "skipped: this process may not mount one"
                return outcome
            run = disk / "run"
            process = start(*WORDS, "--out", run, faults=OFTEN)
            while process.popen.poll() is None and not (run / CHECKPOINT / "manifest.json").exists():
                time.sleep(0.005)
            _fill(disk / "filler")
            problem = _intact_meanwhile(process, run)
            if is_freed:
                (disk / "filler").unlink()
            ended = process.end()
            end = (finished_problem(run, STEPS), _same(run, expected)) if is_freed else (load_problem(run),)
            outcome.count(problem, _told_once(ended), *end, strays(run, while_writing=False))
    return outcome


def _fill(path: Path) -> None:
    """Write until nothing more fits."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
    except OSError:
        pass


@contextmanager
def _mounted(folder: Path) -> Iterator[Path | None]:
    """A tmpfs of a few megabytes at the folder; None where mounting is not permitted."""
    folder.mkdir()
    options = f"size={TMPFS_MEGABYTES}m"
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
        is_mounted = done.returncode == 0 and os.path.ismount(folder)
    except FileNotFoundError:
        is_mounted = False
    try:
        yield folder if is_mounted else None
    finally:
        if is_mounted:
            subprocess.run(["umount", folder], check=True)
