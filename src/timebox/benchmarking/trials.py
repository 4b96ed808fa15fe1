"""One trial: `timebox train` in a process of its own, then an untimed `timebox evaluate` of the whole split."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from timebox.benchmarking.config import evaluate_config, shortened, train_config
from timebox.benchmarking.environment import commit
from timebox.clock import now
from timebox.configs.arguments import to_arguments
from timebox.configs.benchmark import BenchmarkConfig, RecipeVariant
from timebox.errors import OutputError
from timebox.processes import children
from timebox.run.directories.locks import remove_run
from timebox.run.json_values import Count, PhaseSeconds, RecipeFields, Seconds, Share, from_values

# Exit statuses of `timebox train` after which there is a model: in time, and late or not wholly written.
STATUSES_WITH_MODEL = (0, 3)
# A training is killed after MAX_BUDGETS times its budget plus MAX_EXTRA_SECONDS.
MAX_BUDGETS, MAX_EXTRA_SECONDS = 2, 60


class BenchmarkTrial(Struct, frozen=True, kw_only=True):
    """The part of a line of trials.jsonl that a failed trial has too.

    Attributes:
        block: number of the block; each block has one trial of each recipe.
        position: position of the trial in its block.
        label: the recipe, as the results call it.
        seed: random seed of the training.
        command: the command line of the training.
        commit: git commit of timebox's source; null outside a checkout.
        wall_seconds: duration of the training's process.
        late: whether the trial's deadline was missed.
    """

    block: Count
    position: Count
    label: str
    seed: Count
    command: str
    commit: str | None
    wall_seconds: Seconds
    late: bool | UnsetType = UNSET


class FailedTrial(BenchmarkTrial, frozen=True, kw_only=True):
    """A line of trials.jsonl: a trial that failed.

    Attributes:
        failed: the last words of the process.
        status: exit status of the process.
    """

    failed: str
    status: int


class ScoredTrial(BenchmarkTrial, frozen=True, kw_only=True):
    """A line of trials.jsonl: a trial that was trained and scored.

    Attributes:
        accuracy: share of the scored images that are right.
        correct: number of scored images that are right.
        num_images: number of images scored.
        split: the split that was scored.
        tta: views that were averaged.
        num_seen_in_training: number of scored images that are among the training images too.
        evaluation_seconds: duration of the scoring's process.
        plan: the decisions of the planner, in words.
        events: events of the training, such as a rollback.
    """

    accuracy: Share
    correct: Count
    num_images: Count
    split: str
    tta: str
    num_seen_in_training: Count
    evaluation_seconds: Seconds
    budget_seconds: Seconds | None
    elapsed_seconds: float
    phases: PhaseSeconds
    steps: Count
    epochs: float
    images_per_second: Seconds
    final_lr: float
    train_images: Count
    precision: str
    device: str
    threads: Count
    recipe: RecipeFields
    plan: tuple[str, ...]
    events: tuple[str, ...]
    versions: dict[str, str]


TrialRecord = ScoredTrial | FailedTrial


class CutOffError(Exception):
    """The benchmark's deadline passed before the end of a trial."""


@dataclass(frozen=True)
class Trial:
    """One training of one recipe.

    Attributes:
        block: number of the repetition, from 0; it is the seed as well. position: place in the block, from 0.
    """

    block: int
    position: int
    variant: RecipeVariant

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.block


def schedule(variants: Sequence[RecipeVariant], num_blocks: int) -> Iterator[Trial]:
    """Every trial, in order: in each block every recipe once, the order rotated by one from block to block.

    Slow changes of the machine during a benchmark, such as its temperature and load, so affect all recipes alike.
    """
    for block in range(num_blocks):
        for position in range(len(variants)):
            yield Trial(block, position, variants[(block + position) % len(variants)])


def train_command(config: BenchmarkConfig, trial: Trial, run: Path) -> list[str]:
    """The arguments of the training, after ``timebox``."""
    training = train_config(config, trial.variant, trial.seed)
    return ["train", *to_arguments(training.replace(out=str(run))), "--json"]


def evaluate_command(config: BenchmarkConfig, run: Path) -> list[str]:
    """The arguments of the evaluation, after ``timebox``."""
    return ["evaluate", *to_arguments(evaluate_config(config, run)), "--json"]


def run_trial(
    config: BenchmarkConfig, trial: Trial, run: Path, seconds_left: float, keep_at: Path | None
) -> TrialRecord:
    """Train and score once.

    Args:
        run: the run directory while the trial lasts.
        seconds_left: until the benchmark's deadline.
        keep_at: directory to move the run to once it is scored; None to remove it.
    Raises:
        CutOffError: where the deadline comes first.
    """
    ends_at = now() + seconds_left
    command = ["timebox", "train", *to_arguments(train_config(config, trial.variant, trial.seed))]
    record: dict[str, Any] = {
        "block": trial.block,
        "position": trial.position,
        "label": trial.variant.label,
        "seed": trial.seed,
        "command": shortened(command),
        "commit": commit(),
    }
    try:
        trained = _run_timebox(
            train_command(config, trial, run), ends_at, MAX_BUDGETS * config.trial_seconds + MAX_EXTRA_SECONDS
        )
        record["wall_seconds"] = round(trained.seconds, 2)
        if trained.status not in STATUSES_WITH_MODEL or "recipe" not in trained.output:
            return FailedTrial(**record, failed=trained.message, status=trained.status)
        record["late"] = bool(trained.output.get("late")) or trained.seconds > config.trial_seconds
        scored = _run_timebox(evaluate_command(config, run), ends_at)
        if scored.status != 0:
            return FailedTrial(**record, failed=scored.message, status=scored.status)
        if keep_at is not None:
            _move(run, keep_at)
    finally:
        remove_run(run)
    record["correct"] = scored.output["num_correct"]
    record["evaluation_seconds"] = round(scored.seconds, 2)
    return from_values({**trained.output, **scored.output, **record}, ScoredTrial, "the output of a trial")


@dataclass(frozen=True)
class _CommandResult:
    """The exit status of a timebox command, the JSON it printed, its last line on stderr, and its wall time."""

    status: int
    output: Mapping[str, object]
    message: str
    seconds: float


def _run_timebox(arguments: Sequence[str], ends_at: float, max_seconds: float = float("inf")) -> _CommandResult:
    """Run a timebox command to its end. The process is killed when this returns or raises."""
    began = now()
    timeout = min(ends_at - began, max_seconds)
    streams = {"stdin": children.DEVNULL, "stdout": children.PIPE, "stderr": children.PIPE}
    with children.running_module("timebox", arguments, text=True, errors="replace", **streams) as process:
        try:
            out, err = process.communicate(timeout=None if timeout == float("inf") else max(timeout, 0.0))
        except children.TimeoutExpired as error:
            if now() >= ends_at:
                raise CutOffError from error
            return _CommandResult(-1, {}, f"it did not end within {timeout:.0f} s and was stopped", now() - began)
    seconds = now() - began
    try:
        output = json.loads(out)
    except ValueError:
        output = {}
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    message = lines[-1].removeprefix(f"timebox {arguments[0]}: error: ") if lines else ""
    message = message or f"it ended with status {process.returncode}"
    return _CommandResult(process.returncode, output if isinstance(output, dict) else {}, message, seconds)


def _move(run: Path, to: Path) -> None:
    try:
        to.parent.mkdir(exist_ok=True)
        run.rename(to)
    except OSError as error:
        raise OutputError(f"run {str(to)!r} cannot be kept: {error.strerror or error}") from error
