"""What the files of a run say of its deadline, and the table over many runs."""

import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

REFUSED = 2  # exit status
# The last decade of the learning rate is passed gradually with so many steps, none falling by more of the highest rate.
MIN_STEPS, LARGEST_DROP = 5, 0.05
# Of the budget: training on an idle machine with nothing to score, and what scoring may take and a little.
IDLE_TRAINING_SHARE, IDLE_TRAINING_BUDGET = 0.88, 120.0
SCORING_SHARE = 0.1 + 0.01
# A first run may be refused at this budget: reading the libraries from the disk can take all of it.
FIRST_RUN_EXCEPTION = 10.0
# The kernel's record of when a process began is this coarse; seconds.
CLOCK_TICK = 0.02
WORTH_A_LOOK = 0.5  # seconds
TAIL_LINES = 12


@dataclass(frozen=True)
class Schedule:
    """How the learning rate came to its end.

    Attributes:
        end_reached: the last step is at progress 1 and at the schedule's lowest rate.
        last_decade_steps: steps from the last one above a tenth of the highest rate to the end.
        largest_drop: the largest fall between two of them, as a share of the highest rate.
        aborted: whether time ran out in a step, and the training ended before it, as the log says.
    """

    end_reached: bool
    last_decade_steps: int
    largest_drop: float
    aborted: bool = False

    @property
    def gradual(self) -> bool:
        """Whether the last decade was passed in steps small enough to be called annealing."""
        return self.last_decade_steps >= MIN_STEPS and self.largest_drop <= LARGEST_DROP


def judge_schedule(steps: Sequence[Mapping[str, float]], final_lr: float, lowest_lr: float) -> Schedule:
    """The end of a schedule, from the lines that metrics.jsonl holds of the steps.

    Args:
        final_lr: as the summary gives it.
        lowest_lr: what the recipe ends with.
    """
    rates = [step["lr"] for step in steps]
    if not rates:
        return Schedule(False, 0, 1.0)
    highest = max(rates)
    above = max(index for index, rate in enumerate(rates) if rate > 0.1 * highest)
    decade = rates[above:]
    drops = [before - after for before, after in pairwise(decade)]
    tolerance = 1e-9 * highest
    at_end = abs(rates[-1] - final_lr) <= tolerance and final_lr <= lowest_lr + tolerance
    return Schedule(at_end and steps[-1]["progress"] == 1.0, len(drops), max(drops, default=0.0) / highest)


@dataclass(frozen=True)
class Figures:
    """What a run says of itself. Shares are of the budget.

    Attributes:
        reserve_seconds: what the plan kept free; None where the summary does not say.
        training_share: of the phase; ``steps_share``: of the steps in it, at the speed the summary gives.
        scoring_share: of scoring at the end and of validation on the way.
    """

    late: bool
    elapsed_seconds: float
    reserve_seconds: float | None
    schedule: Schedule
    steps: int
    training_share: float
    steps_share: float
    scoring_share: float
    val_images: int | None
    val_images_total: int | None
    test_images: int | None
    test_images_total: int | None
    phases: Mapping[str, float]
    plan: Sequence[str]


def read_figures(run: Path, stdout: str, budget_seconds: float) -> Figures | None:
    """The figures of a run directory and the summary that was printed; None where there is no summary."""
    try:
        summary = json.loads(stdout)
    except ValueError:
        return None
    if "elapsed_seconds" not in summary:
        return None
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    recipe, phases = summary["recipe"], summary["phases"]
    lowest_lr = recipe["max_lr"] * recipe["end_fraction"]
    step_seconds = summary["steps"] * recipe["batch_size"] / max(summary["images_per_second"], 1e-9)
    return Figures(
        late=summary["late"],
        elapsed_seconds=summary["elapsed_seconds"],
        reserve_seconds=summary.get("reserve_seconds"),
        schedule=replace(
            judge_schedule([line for line in lines if "lr" in line], summary["final_lr"], lowest_lr),
            aborted=any(line.get("aborted") for line in lines),
        ),
        steps=summary["steps"],
        training_share=round(phases.get("training", 0.0) / budget_seconds, 4),
        steps_share=round(step_seconds / budget_seconds, 4),
        scoring_share=round((phases.get("scoring", 0.0) + phases.get("validating", 0.0)) / budget_seconds, 4),
        val_images=summary.get("val_images"),
        val_images_total=summary.get("val_images_total"),
        test_images=summary.get("test_images"),
        test_images_total=summary.get("test_images_total"),
        phases=phases,
        plan=summary["plan"],
    )


@dataclass(frozen=True)
class Record:
    """One run: a line of the results.

    Attributes:
        load_before: the machine's load average, over a minute, before the run.
        wall_seconds, late: as measured from outside.
        stalled_seconds: the longest time for which the benchmark itself was kept from running.
        disturbance: what befell the run, when and for how long.
        stderr: the last lines.
        figures: None where the run came to no summary.
    """

    scenario: str
    budget_seconds: float
    repeat: int
    seed: int
    command: str
    commit: str
    load_before: float
    wall_seconds: float
    late: bool
    stalled_seconds: float
    status: int
    disturbance: Mapping[str, object]
    stderr: str
    figures: Figures | None

    @property
    def refused(self) -> bool:
        """Whether the budget, or something else the user must change, was refused."""
        return self.status == REFUSED


def tail(text: str) -> str:
    """The last lines."""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def read_records(path: Path) -> list[Record]:
    """The runs a file of results holds."""
    return [_record(json.loads(line)) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _record(entry: dict[str, Any]) -> Record:
    figures = entry.pop("figures")
    if figures is not None:
        figures = Figures(**{**figures, "schedule": Schedule(**figures["schedule"])})
    return Record(**entry, figures=figures)


def misses(record: Record) -> list[str]:
    """What a run did that it must not do on the machine of a record, each in a few words."""
    if record.refused:
        excepted = record.scenario == "first-run" and record.budget_seconds <= FIRST_RUN_EXCEPTION
        return [*_lateness(record), *([] if excepted else ["refused"])]
    found = broken_promises(record)
    return [*found, *_shortfalls(record, record.figures)] if record.figures else found


def broken_promises(record: Record) -> list[str]:
    """What a run did that it must not do on any machine, each in a few words.

    A refusal breaks no promise, and comes late where starting alone took longer than the budget.
    """
    if record.refused:
        return []
    found = _lateness(record)
    if record.status:
        found.append(f"ended with status {record.status}")
    if (figures := record.figures) is None:
        return [*found, "no summary"]
    if figures.late != record.late:
        found.append(f"its own late flag says {figures.late}, at {figures.elapsed_seconds:.2f}s")
    if figures.elapsed_seconds > record.wall_seconds + CLOCK_TICK:
        found.append(f"its own clock says {figures.elapsed_seconds:.2f}s")
    if not figures.schedule.end_reached and not figures.schedule.aborted:
        found.append("final lr not reached")
    return found


def _lateness(record: Record) -> list[str]:
    return [f"late by {record.wall_seconds - record.budget_seconds:.2f}s"] if record.late else []


def _shortfalls(record: Record, figures: Figures) -> list[str]:
    """What a machine that is fast enough must reach."""
    found = []
    if figures.schedule.aborted:
        found.append("a step was aborted before the end of the schedule")
    elif not figures.schedule.gradual:
        drop = figures.schedule.largest_drop
        found.append(f"last decade in {figures.schedule.last_decade_steps} steps, largest drop {drop:.1%}")
    if record.scenario == "large-val" and figures.scoring_share > SCORING_SHARE:
        found.append(f"scoring took {figures.scoring_share:.1%} of the budget")
    idle = record.scenario == "idle" and record.budget_seconds >= IDLE_TRAINING_BUDGET
    if idle and figures.steps_share < IDLE_TRAINING_SHARE:
        found.append(f"training steps filled only {figures.steps_share:.1%} of the budget")
    return found


COLUMNS = (
    ("scenario", 11),
    ("budget", 6),
    ("runs", 4),
    ("late", 4),
    ("refused", 7),
    ("failed", 6),
    ("final lr", 8),
    ("gradual", 7),
    ("wall/budget (max)", 17),
    ("training (min)", 15),
    ("scoring (max)", 13),
)


def table(records: Sequence[Record], scenarios: Sequence[str]) -> str:
    """Counts by scenario and budget; below, what was not as described, what was missed, and the total."""
    lines = [" ".join(f"{title:>{width}}" for title, width in COLUMNS)]
    for scenario in scenarios:
        for budget in sorted({record.budget_seconds for record in records}):
            cell = [r for r in records if r.scenario == scenario and r.budget_seconds == budget]
            if cell:
                values = zip(_row(cell), COLUMNS, strict=True)
                lines.append(" ".join(f"{value:>{width}}" for value, (_, width) in values))
    lines += ["", *_notes(records)]
    for record in records:
        if found := misses(record):
            lines.append(f"{_name(record)}, repeat {record.repeat}: {'; '.join(found)}{_excuse(record)}")
    return "\n".join([*lines, _total(records)])


def _row(cell: Sequence[Record]) -> list[str]:
    done = [record.figures for record in cell if record.figures]
    return [
        cell[0].scenario,
        f"{cell[0].budget_seconds:g}s",
        str(len(cell)),
        str(sum(record.late for record in cell)),
        str(sum(record.refused for record in cell)),
        str(sum(record.status != 0 and not record.refused for record in cell)),
        f"{sum(figures.schedule.end_reached for figures in done)}/{len(done)}",
        f"{sum(figures.schedule.gradual for figures in done)}/{len(done)}",
        _spread([record.wall_seconds / record.budget_seconds for record in cell], max),
        _spread([figures.steps_share for figures in done], min),
        _spread([figures.scoring_share for figures in done], max),
    ]


def _spread(shares: Sequence[float], worst: Callable[[Sequence[float]], float]) -> str:
    return f"{statistics.median(shares):.1%} ({worst(shares):.1%})" if shares else "-"


def _excuse(record: Record) -> str:
    """That the machine stood still; it counts all the same, but is worth a look."""
    stalled = record.stalled_seconds
    return f" (the benchmark itself stood still for {stalled:.1f}s)" if stalled >= WORTH_A_LOOK else ""


def _name(record: Record) -> str:
    return f"{record.scenario} {record.budget_seconds:g}s"


def _notes(records: Sequence[Record]) -> list[str]:
    """A line for each kind of disturbance that could not be had as described, without the numbers after its colon."""
    kinds = Counter(
        f"{_name(record)}: {str(note).partition(':')[0]}"
        for record in records
        if (note := record.disturbance.get("note"))
    )
    return [f"{kind}, {count} runs" for kind, count in sorted(kinds.items())]


def _total(records: Sequence[Record]) -> str:
    done = [record.figures.schedule for record in records if record.figures]
    return (
        f"{sum(record.late for record in records)} late of {len(records)} runs, "
        f"{sum(record.refused for record in records)} refused; "
        f"final lr reached in {sum(schedule.end_reached for schedule in done)} of {len(done)}, "
        f"its last decade passed gradually in {sum(schedule.gradual for schedule in done)}"
    )
