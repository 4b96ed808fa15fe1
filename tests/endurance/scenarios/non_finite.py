"""A loss or a gradient that is NaN or infinite."""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from scenarios.run_checks import finished_problem, load_problem, summary_of
from scenarios.table import Row, joined
from scenarios.training_process import BASE, OFTEN, TRAIN, Ended, finish, seeded, workplace

STEPS = 300
GENTLE = tuple(w for v in ("flip=none", "tta=none", "crop_padding=1", "cutout_size=0") for w in ("--set", v))
# Wide enough to learn the digits well, so that a point lost would show.
LEARNING = ("train", "digits", *BASE, "--set", "width=16", "--set", "batch_size=64", "--set", "max_lr=0.25", *GENTLE)
MOST_POINTS_LOST = 1.0
ONCE = (("loss", "nan"), ("loss", "inf"), ("gradient", "nan"), ("gradient", "inf"))
IN_LAST_STEP = LASTING = (("loss", "nan"), ("gradient", "inf"))


def rows(num_seeds: int) -> Iterator[Row]:
    """NaN and infinity, once and lasting.

    Args:
        num_seeds: pairs of trainings with and without a value that is not finite.
    """
    with workplace() as place:
        clean = [clean_accuracy(place / f"clean-{seed}", seed) for seed in range(num_seeds)]
        for where, value in ONCE:
            yield _once_row(place, where, value, clean)
        row = Row("nan or inf in the very last step", "exit 0; schedule finished; predictions finite")
        for where, value in IN_LAST_STEP:
            row.count(in_last_step(place / f"last-{where}", where, value))
        yield row
        row = Row("nan or inf from a step on", "exit 2; one line with step and likely cause; the run loads")
        for where, value in LASTING:
            row.count(lasting(place / f"lasting-{where}", where, value))
        yield row
        row = Row("a gradient overflows once in fp16", "exit 0; the step is skipped, without a rollback")
        row.count(overflow_in_fp16(place / "fp16"))
        yield row


def _once_row(place: Path, where: str, value: str, clean: list[float]) -> Row:
    row = Row(
        f"{value} once in the {where}", f"exit 0; schedule finished; within {MOST_POINTS_LOST:g} point of the clean run"
    )
    faulty = []
    for seed in range(len(clean)):
        problem, accuracy = once(place / f"{where}-{value}-{seed}", where, value, seed)
        faulty.append(accuracy)
        row.count(problem)
    lost = points_lost(clean, faulty)
    row.note = f"mean {mean(clean):.2%} clean, {lost:+.2f} points lost, {len(clean)} pairs"
    if lost > MOST_POINTS_LOST:
        row.problems.append(f"{lost:.2f} points lost: {clean} clean, {faulty} with it")
    return row


def clean_accuracy(run: Path, seed: int) -> float:
    """Test accuracy of a training without a fault."""
    finish(*LEARNING, "--steps", STEPS, "--seed", seed, "--out", run)
    return _accuracy(run)


def once(run: Path, where: str, value: str, seed: int) -> tuple[str, float]:
    """One value that is not finite, at a random step: what was wrong, empty for nothing, and the test accuracy."""
    step = seeded(f"non-finite {where} {value} {seed}").randrange(1, STEPS)
    words = (*LEARNING, "--steps", STEPS, "--seed", seed, "--out", run)
    ended = finish(*words, faults=_fault(where, value, step))
    return _not_recovered(ended, run), _accuracy(run)


def points_lost(clean: list[float], faulty: list[float]) -> float:
    """Percentage points between the mean accuracies."""
    return 100 * (mean(clean) - mean(faulty))


def in_last_step(run: Path, where: str, value: str) -> str:
    """A value that is not finite in the last step; what was wrong, empty for nothing."""
    ended = finish(*TRAIN, "--steps", STEPS, "--out", run, faults=_fault(where, value, STEPS))
    return _not_recovered(ended, run)


def lasting(run: Path, where: str, value: str) -> str:
    """Values that are not finite from a step on; what was wrong, empty for nothing."""
    ended = finish(*TRAIN, "--steps", STEPS, "--out", run, faults=_fault(where, value, 20, is_lasting=True))
    told = ended.lines_with(r"timebox train: error: .* at step 2[0-9].*(rate|max_lr)")
    return joined(
        f"status {ended.status}" if ended.status != 2 else "",
        f"told in {len(told)} lines: {ended.err[-300:]}" if len(told) != 1 else "",
        load_problem(run),
    )


def overflow_in_fp16(run: Path) -> str:
    """An infinite gradient, which gradient scaling skips; what was wrong, empty for nothing."""
    words = [word if word != "fp32" else "fp16" for word in TRAIN]
    ended = finish(*words, "--steps", 60, "--out", run, faults=_fault("gradient", "inf", 30))
    events = summary_of(run).get("events")
    return joined(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, 60),
        f"events {events}" if events else "",
    )


def _fault(where: str, value: str, step: int, is_lasting: bool = False) -> dict[str, object]:
    return {**OFTEN, "non_finite": {"where": where, "value": value, "step": step, "lasting": is_lasting}}


def _not_recovered(ended: Ended, run: Path) -> str:
    return joined(
        f"status {ended.status}: {ended.err[-300:]}" if ended.status else "",
        finished_problem(run, STEPS),
        "" if summary_of(run).get("events") else "the summary does not tell of it",
    )


def _accuracy(run: Path) -> float:
    accuracy = summary_of(run).get("test_accuracy")
    return accuracy if isinstance(accuracy, float) else 0.0
