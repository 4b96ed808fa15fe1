"""Memory that runs out for large micro-batches, for whole normalisation groups, or always."""

import json
from collections.abc import Iterator
from pathlib import Path

from scenarios.run_checks import finished_problem, summary_of
from scenarios.table import Row, joined
from scenarios.training_process import OFTEN, TRAIN, Ended, finish, workplace

STEPS = 60
GHOST_SIZE = 32
# An error of torch's allocator, and Python's own.
ERRORS = ("runtime", "python")


def rows() -> Iterator[Row]:
    """What is split, and what cannot be."""
    whole_groups = Row("out of memory above one ghost group", "exit 0; split into whole groups; the summary says so")
    small_parts = Row("out of memory above a part of a group", "exit 0; normalised by parts; the summary says so")
    always = Row("out of memory always", "exit 2; one line")
    with workplace() as place:
        for error in ERRORS:
            whole_groups.count(split_into_groups(place / f"groups-{error}", error))
            small_parts.count(split_within_groups(place / f"parts-{error}", error))
            always.count(too_little_for_one_image(place / f"always-{error}", error))
    yield from (whole_groups, small_parts, always)


def split_into_groups(run: Path, error: str) -> str:
    """Room for one normalisation group of a batch; what was wrong, empty for nothing."""
    problem = _not_split(_train(run, GHOST_SIZE, error), run, "micro-batches of 32")
    sizes = _micro_batches(run)
    return joined(problem, "" if sizes == {GHOST_SIZE} else f"micro-batches of {sizes}")


def split_within_groups(run: Path, error: str) -> str:
    """Room for a part of a normalisation group; what was wrong, empty for nothing."""
    return _not_split(_train(run, 10, error), run, "normalised")


def too_little_for_one_image(run: Path, error: str) -> str:
    """No room at all; what was wrong, empty for a refusal as it should be."""
    ended = _train(run, 0, error)
    told = ended.lines_with("timebox train: error: memory ran out")
    return joined(
        f"status {ended.status}" if ended.status != 2 else "",
        f"told in {len(told)} lines: {ended.err[-300:]}" if len(told) != 1 else "",
        f"left {run.name}" if run.exists() else "",
    )


def _train(run: Path, more_than: int, error: str) -> Ended:
    faults = {**OFTEN, "memory": {"more_than": more_than, "error": error}}
    return finish(*TRAIN, "--steps", STEPS, "--out", run, faults=faults)


def _not_split(ended: Ended, run: Path, words: str) -> str:
    events = summary_of(run).get("events")
    return joined(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, STEPS),
        "" if isinstance(events, list) and any(words in event for event in events) else f"events {events}",
    )


def _micro_batches(run: Path) -> set[object]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {entry["micro_batch"] for entry in map(json.loads, lines) if "loss" in entry}
