"""Disks that are full, read-only or fail midway."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from scenarios.run_checks import CHECKPOINT, finished_problem, is_finished, load_problem, step_of, strays, weights
from scenarios.table import Row, joined
from scenarios.training_process import OFTEN, TRAIN, Ended, Process, finish, start, workplace

STEPS = 250
WORDS = (*TRAIN, "--steps", STEPS)
DISK_MEGABYTES = 4
IN_CHECKPOINT = "/checkpoint/*"
NO_WRITES = "the checkpoint could not be written"


class Failure(NamedTuple):
    """A file operation that fails.

    Attributes:
        call: which one: open, write, fsync or replace.
        name: pattern of the path's end.
        at: number of the call that fails, from 1.
        lasting: whether every later one fails too.
        after: bytes of a write that still arrive.
        errno: name of the error.
    """

    call: str
    name: str
    at: int
    lasting: bool
    after: int
    errno: str


CHECKPOINT_FAILURES: tuple[Failure, ...] = (
    Failure("write", f"{IN_CHECKPOINT}.safetensors.*.tmp", 2, False, 1000, "ENOSPC"),
    Failure("write", f"{IN_CHECKPOINT}.safetensors.*.tmp", 3, True, 0, "ENOSPC"),
    Failure("write", f"{IN_CHECKPOINT}manifest.json.*.tmp", 2, False, 10, "ENOSPC"),
    Failure("fsync", f"{IN_CHECKPOINT}.tmp", 3, False, 0, "ENOSPC"),
    Failure("fsync", f"{IN_CHECKPOINT}.tmp", 4, True, 0, "EIO"),
    Failure("replace", f"{IN_CHECKPOINT}.safetensors", 2, False, 0, "ENOSPC"),
    Failure("replace", f"{IN_CHECKPOINT}manifest.json", 3, True, 0, "EROFS"),
    Failure("open", f"{IN_CHECKPOINT}.tmp", 4, True, 0, "EROFS"),
    Failure("open", f"{IN_CHECKPOINT}.tmp", 4, False, 0, "EACCES"),
    Failure("write", "/metrics.jsonl", 2, False, 0, "ENOSPC"),
)
FIRST_CHECKPOINT_FAILURES: tuple[Failure, ...] = (
    Failure("write", f"{IN_CHECKPOINT}.safetensors.*.tmp", 1, False, 1000, "ENOSPC"),
    Failure("write", "/.model.json.*.tmp", 1, False, 10, "ENOSPC"),
    Failure("write", "/metrics.jsonl", 1, False, 0, "ENOSPC"),
)
FINAL_FAILURES: tuple[Failure, ...] = (
    Failure("write", "/.model.safetensors.*.tmp", 1, True, 1000, "ENOSPC"),
    Failure("fsync", "/.model.safetensors.*.tmp", 1, True, 0, "EIO"),
    Failure("replace", "/model.safetensors", 1, True, 0, "EROFS"),
    Failure("write", "/.predictions.npz.*.tmp", 1, True, 10, "ENOSPC"),
    Failure("write", "/.summary.json.*.tmp", 1, True, 10, "ENOSPC"),
    Failure("open", "/.summary.json.*.tmp", 1, True, 0, "EROFS"),
)


def rows() -> Iterator[Row]:
    """Injected failures, then a small disk of its own where this process may mount one."""
    with workplace() as place:
        whole = place / "whole"
        finish(*WORDS, "--out", whole, faults=OFTEN)
        row = Row(
            "a checkpoint cannot be written", "trains on to the same weights; told once; the one before loads; exit 3"
        )
        for number, failure in enumerate((*CHECKPOINT_FAILURES, *FIRST_CHECKPOINT_FAILURES)):
            row.count(checkpoint_fails(place / f"checkpoint-{number}", failure, weights(whole)))
        yield row
        row = Row("the final save cannot be written", "the model, or the last checkpoint, loads; one line; exit 3")
        for number, failure in enumerate(FINAL_FAILURES):
            row.count(final_save_fails(place / f"final-{number}", failure))
        yield row
        row = Row(
            "the disk is full (a small tmpfs)",
            "the checkpoint before loads; freed in time: whole; not freed: it loads; exit 3",
        )
        for is_freed in (True, False):
            with small_disk(place / f"disk-{is_freed}") as disk:
                if disk is None:
                    row.note = "skipped: this process may not mount one"
                else:
                    row.count(disk_is_full(disk, is_freed, weights(whole)))
        yield row


def checkpoint_fails(run: Path, failure: Failure, expected: bytes) -> str:
    """A training of which one file operation fails; what was wrong, empty for nothing.

    Args:
        expected: the weights of an undisturbed run.
    """
    process = start(*WORDS, "--out", run, faults=_injected(failure))
    problem = "" if failure in FIRST_CHECKPOINT_FAILURES else _intact_meanwhile(process, run)
    problem = joined(problem, _told_once(process.end()), finished_problem(run, STEPS), _same(run, expected))
    return problem and f"{failure[:3]}: {problem}"


def final_save_fails(run: Path, failure: Failure) -> str:
    """A training of which the last file operations fail; what was wrong, empty for nothing."""
    ended = finish(*WORDS, "--out", run, faults=_injected(failure))
    errors = ended.lines_with(" cannot be written in ")
    problem = joined(
        f"status {ended.status}" if ended.status != 3 else "",
        f"told {len(errors)} times: {ended.err[-300:]}" if len(errors) != 1 else "",
        load_problem(run),
        strays(run, while_writing=False),
    )
    return problem and f"{failure[:3]}: {problem}"


def disk_is_full(disk: Path, is_freed: bool, expected: bytes) -> str:
    """A training on a disk that is filled after the first checkpoint; what was wrong, empty for nothing.

    Args:
        disk: as `small_disk` mounts it.
        is_freed: whether there is room again before the training ends.
    """
    run = disk / "run"
    process = start(*WORDS, "--out", run, faults=OFTEN)
    process.wait_until((run / CHECKPOINT / "manifest.json").exists)
    _fill(disk / "filler")
    problem = _intact_meanwhile(process, run)
    if is_freed:
        (disk / "filler").unlink()
    ended = process.end()
    end = joined(finished_problem(run, STEPS), _same(run, expected)) if is_freed else load_problem(run)
    return joined(problem, _told_once(ended), end, strays(run, while_writing=False))


def _injected(failure: Failure) -> dict[str, object]:
    return {**OFTEN, "files": [failure._asdict()]}


def _intact_meanwhile(process: Process, run: Path) -> str:
    """What is wrong with the checkpoint on disk while the training goes on after a write has failed."""
    if not process.wait_for(NO_WRITES):
        return "no failure was told while it trained"
    with process.standing_still():
        is_left = is_finished(run) or step_of(run) > 0
        return load_problem(run) if is_left else "no checkpoint is left"


def _told_once(ended: Ended) -> str:
    told = ended.lines_with(NO_WRITES)
    return joined(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status != 3 else "",
        f"told {len(told)} times" if len(told) != 1 else "",
    )


def _same(run: Path, expected: bytes) -> str:
    return "" if weights(run) == expected else "other weights than undisturbed"


def _fill(path: Path) -> None:
    """Write until nothing more fits."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
    except OSError:
        pass


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A tmpfs of a few megabytes at the folder; None where mounting is not permitted."""
    folder.mkdir()
    options = f"size={DISK_MEGABYTES}m"
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
