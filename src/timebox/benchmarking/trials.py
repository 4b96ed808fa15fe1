"""One trial: a `timebox train` in a process of its own, then an untimed `timebox evaluate` of the whole split."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from timebox.benchmarking.config import Asked, Contender, shortened
from timebox.benchmarking.environment import commit
from timebox.clock import now
from timebox.errors import OutputError

Record = Mapping[str, object]

# Statuses of `timebox train` that come with a model: in time, and late or not wholly written.
WITH_A_MODEL = (0, 3)
# A trial that has not ended after so many budgets and seconds never will.
LONGEST_BUDGETS, LONGEST_MORE_SECONDS = 2, 60
# Of the summary of a training.
KEPT = (
    "budget_seconds",
    "elapsed_seconds",
    "phases",
    "steps",
    "epochs",
    "images_per_second",
    "final_lr",
    "train_images",
    "precision",
    "device",
    "threads",
    "recipe",
    "plan",
    "events",
    "versions",
)


class CutOffError(Exception):
    """The benchmark's own deadline came before the end of a trial."""


@dataclass(frozen=True)
class Trial:
    """One contender trained once.

    Attributes:
        block: which repetition, from 0; it is the seed as well. position: which in the block, from 0.
    """

    block: int
    position: int
    contender: Contender

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.block


def schedule(contenders: Sequence[Contender], num_blocks: int) -> Iterator[Trial]:
    """Every trial, in order: in each block every contender once, the order turned by one from block to block.

    So what drifts while a benchmark runs, a machine that grows warm or busy, meets all contenders alike.
    """
    for block in range(num_blocks):
        for position in range(len(contenders)):
            yield Trial(block, position, contenders[(block + position) % len(contenders)])


def train_command(asked: Asked, trial: Trial, out: Path) -> list[str]:
    """The words of `timebox train` after ``timebox``."""
    source, request = asked.source, asked.request(trial.contender, trial.seed)
    words = ["train", source.data, "--budget", asked.trial_budget, "--recipe", request.recipe]
    words += asked.options(request.settings)
    words += [] if source.val is None else ["--val", str(source.val)]
    return [*words, "--test", "none", "--no-scoring", "--seed", str(trial.seed), "--out", str(out), "--json"]


def evaluate_command(asked: Asked, run: Path) -> list[str]:
    """The words of `timebox evaluate` after ``timebox``."""
    words = ["evaluate", str(run), asked.data, "--split", asked.score, "--tta", asked.tta, *asked.reading_options()]
    return [*words, "--json"]


def run_job(asked: Asked, trial: Trial, run: Path, seconds_left: float, keep_at: Path | None) -> Record:
    """Train and score once; what there is to say of it, ready for JSON. A trial that fails is told of as well.

    Args:
        run: where the model goes for so long.
        seconds_left: until the benchmark must have ended.
        keep_at: where the model goes for good once it is scored; None to remove it.
    Raises:
        CutOffError: where that comes first.
    """
    ends_at = now() + seconds_left
    command = train_command(asked, trial, run)
    known = {
        "block": trial.block,
        "position": trial.position,
        "label": trial.contender.label,
        "seed": trial.seed,
        "command": shortened(["timebox", *_without_out(command)]),
        "commit": commit(),
    }
    try:
        trained = _timebox(command, ends_at, LONGEST_BUDGETS * asked.trial_seconds + LONGEST_MORE_SECONDS)
        known["wall_seconds"] = round(trained.seconds, 2)
        if trained.status not in WITH_A_MODEL or "recipe" not in trained.found:
            return {**known, "failed": trained.message, "status": trained.status}
        late = bool(trained.found.get("late")) or trained.seconds > asked.trial_seconds
        scored = _timebox(evaluate_command(asked, run), ends_at)
        if scored.status != 0:
            return {**known, "late": late, "failed": scored.message, "status": scored.status}
        if keep_at is not None:
            _move(run, keep_at)
    finally:
        shutil.rmtree(run, ignore_errors=True)
    facts = {name: trained.found.get(name) for name in KEPT}
    return {**known, "late": late, **_scores(scored), **facts}


@dataclass(frozen=True)
class _Outcome:
    """How a command of timebox ended: its status, the JSON it printed, its last words, and how long it took."""

    status: int
    found: Mapping[str, object]
    message: str
    seconds: float


def _timebox(words: Sequence[str], ends_at: float, longest_seconds: float = float("inf")) -> _Outcome:
    """Run a command to its end. However this is left, the process is gone."""
    began = now()
    patience = min(ends_at - began, longest_seconds)
    command = [sys.executable, "-m", "timebox", *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            out, err = process.communicate(timeout=None if patience == float("inf") else max(patience, 0.0))
        except subprocess.TimeoutExpired as error:
            if now() >= ends_at:
                raise CutOffError from error
            return _Outcome(-1, {}, f"it did not end within {patience:.0f} s and was stopped", now() - began)
        finally:
            process.kill()
    seconds = now() - began
    try:
        found = json.loads(out)
    except ValueError:
        found = {}
    said = [line for line in err.splitlines() if line.strip()] or [f"it ended with status {process.returncode}"]
    return _Outcome(process.returncode, found if isinstance(found, dict) else {}, _message(said[-1]), seconds)


def _message(line: str) -> str:
    """What an error line says, without the command's name before it."""
    return line.strip().removeprefix("timebox train: error: ").removeprefix("timebox evaluate: error: ")


def _move(run: Path, to: Path) -> None:
    try:
        to.parent.mkdir(exist_ok=True)
        run.rename(to)
    except OSError as error:
        raise OutputError(f"run {str(to)!r} cannot be kept: {error.strerror or error}") from error


def _scores(scored: _Outcome) -> dict[str, object]:
    confusion = scored.found["confusion"]
    assert isinstance(confusion, list)
    return {
        "accuracy": scored.found["accuracy"],
        "correct": sum(row[place] for place, row in enumerate(confusion)),
        **{name: scored.found[name] for name in ("num_images", "split", "tta", "num_seen_in_training")},
        "evaluation_seconds": round(scored.seconds, 2),
    }


def _without_out(command: Sequence[str]) -> list[str]:
    """A command without the directory it writes to, which is gone afterwards, and what only programs need."""
    place = command.index("--out")
    return [*command[:place], *(word for word in command[place + 2 :] if word != "--json")]
