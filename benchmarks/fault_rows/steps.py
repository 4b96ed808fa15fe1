"""Steps that go wrong: numbers that are not finite, memory that runs out."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from fault_rows.runs import (
    BASE,
    OFTEN,
    TRAIN,
    Ended,
    Outcome,
    finish,
    finished_problem,
    load_problem,
    seeded,
    summary_of,
    workplace,
)

STEPS = 300
GENTLE = tuple(w for v in ("flip=none", "tta=none", "crop_padding=1", "cutout_size=0") for w in ("--set", v))
# Wide enough to learn the digits well, so that a point lost would show.
LEARNING = ("train", "digits", *BASE, "--set", "width=16", "--set", "batch_size=64", "--set", "max_lr=0.25", *GENTLE)
MOST_POINTS_LOST = 1.0
GHOST_SIZE, BATCH_SIZE = 32, 64


def numbers(num_seeds: int, short: bool = False) -> Iterator[Outcome]:
    """NaN and Inf, once and lasting."""
    with workplace() as place:
        if not short:
            yield from _once(place, num_seeds)
        yield _at_the_last_step(place, (("gradient", "nan"),) if short else (("loss", "nan"), ("gradient", "inf")))
        yield _lasting(place, (("loss", "nan"),) if short else (("loss", "nan"), ("gradient", "inf")))
        if not short:
            yield _overflow(place)


def _fault(where: str, value: str, step: int, lasting: bool = False) -> dict[str, object]:
    return {**OFTEN, "numbers": {"where": where, "value": value, "step": step, "lasting": lasting}}


def _once(place: Path, num_seeds: int) -> Iterator[Outcome]:
    steps = seeded("numbers")
    clean = []
    for seed in range(num_seeds):
        run = place / f"clean-{seed}"
        finish(*LEARNING, "--steps", STEPS, "--seed", seed, "--out", run)
        clean.append(_accuracy(run))
    for where, value in (("loss", "nan"), ("loss", "inf"), ("gradient", "nan"), ("gradient", "inf")):
        outcome = Outcome(
            f"{value} once in the {where}",
            f"exit 0; schedule finished; within {MOST_POINTS_LOST:g} point of the clean run",
        )
        faulty = []
        for seed in range(num_seeds):
            run = place / f"{where}-{value}-{seed}"
            step = steps.randrange(1, STEPS)
            words = (*LEARNING, "--steps", STEPS, "--seed", seed, "--out", run)
            ended = finish(*words, faults=_fault(where, value, step))
            faulty.append(_accuracy(run))
            outcome.count(*_mended(ended, run))
        lost = 100 * (mean(clean) - mean(faulty))
        outcome.note = f"mean {mean(clean):.2%} clean, {lost:+.2f} points lost, {num_seeds} pairs"
        if lost > MOST_POINTS_LOST:
            outcome.problems.append(f"{lost:.2f} points lost: {clean} clean, {faulty} with it")
        yield outcome


def _at_the_last_step(place: Path, faults: tuple[tuple[str, str], ...]) -> Outcome:
    outcome = Outcome("nan or inf in the very last step", "exit 0; schedule finished; predictions finite")
    for where, value in faults:
        run = place / f"last-{where}-{value}"
        ended = finish(*TRAIN, "--steps", STEPS, "--out", run, faults=_fault(where, value, STEPS))
        outcome.count(*_mended(ended, run))
    return outcome


def _lasting(place: Path, faults: tuple[tuple[str, str], ...]) -> Outcome:
    outcome = Outcome("nan or inf from a step on", "exit 2; one line with step and likely cause; the run loads")
    for where, value in faults:
        run = place / f"lasting-{where}-{value}"
        ended = finish(*TRAIN, "--steps", STEPS, "--out", run, faults=_fault(where, value, 20, lasting=True))
        told = ended.lines_with(r"timebox train: error: .* at step 2[0-9].*(rate|max_lr)")
        outcome.count(
            f"status {ended.status}" if ended.status != 2 else "",
            f"told in {len(told)} lines: {ended.err[-300:]}" if len(told) != 1 else "",
            load_problem(run),
        )
    return outcome


def _overflow(place: Path) -> Outcome:
    outcome = Outcome("a gradient overflows once in fp16", "exit 0; the step is skipped, without a rollback")
    run = place / "fp16"
    words = [word if word != "fp32" else "fp16" for word in TRAIN]
    ended = finish(*words, "--steps", 60, "--out", run, faults=_fault("gradient", "inf", 30))
    events = summary_of(run).get("events")
    outcome.count(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, 60),
        f"events {events}" if events else "",
    )
    return outcome


def _mended(ended: Ended, run: Path) -> tuple[str, ...]:
    events = summary_of(run).get("events")
    return (
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, STEPS),
        "" if events else "the summary does not tell of it",
    )


def _accuracy(run: Path) -> float:
    accuracy = summary_of(run).get("test_accuracy")
    return accuracy if isinstance(accuracy, float) else 0.0


def memory(short: bool = False) -> Iterator[Outcome]:
    """Memory that runs out: for large parts, for every whole group, always."""
    whole_groups = Outcome(
        "out of memory above one ghost group", "exit 0; split into whole groups; the summary says so"
    )
    small_parts = Outcome("out of memory above a part of a group", "exit 0; normalised by parts; the summary says so")
    always = Outcome("out of memory always", "exit 2; one line")
    with workplace() as place:
        for kind in ("runtime", "python"):
            run = place / f"whole-{kind}"
            ended = finish(*TRAIN, "--steps", 60, "--out", run, faults=_short_of_memory(GHOST_SIZE, kind))
            parts = _micro_batches(run)
            whole_groups.count(
                *_split(ended, run, "in parts of 32"),
                "" if parts == {GHOST_SIZE} else f"parts of {parts}",
            )
            if short:
                break
            ended = finish(*TRAIN, "--steps", 60, "--out", place / f"small-{kind}", faults=_short_of_memory(10, kind))
            small_parts.count(*_split(ended, place / f"small-{kind}", "normalised"))
            run = place / f"always-{kind}"
            ended = finish(*TRAIN, "--steps", 60, "--out", run, faults=_short_of_memory(0, kind))
            told = ended.lines_with("timebox train: error: memory ran out")
            always.count(
                f"status {ended.status}" if ended.status != 2 else "",
                f"told in {len(told)} lines: {ended.err[-300:]}" if len(told) != 1 else "",
                f"left {run.name}" if run.exists() else "",
            )
    yield from (whole_groups,) if short else (whole_groups, small_parts, always)


def _short_of_memory(more_than: int, kind: str) -> dict[str, object]:
    return {**OFTEN, "memory": {"more_than": more_than, "error": kind}}


def _split(ended: Ended, run: Path, words: str) -> tuple[str, ...]:
    events = summary_of(run).get("events")
    return (
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, 60),
        "" if isinstance(events, list) and any(words in event for event in events) else f"events {events}",
    )


def _micro_batches(run: Path) -> set[object]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {entry["micro_batch"] for entry in map(json.loads, lines) if "loss" in entry}
