"""The summary of a benchmark's trials: pure functions of its records."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Literal

from msgspec import Struct

from timebox.benchmarking.statistics import ALPHA, MIN_PAIRS, ComparisonResult, compare, describe
from timebox.benchmarking.trials import FailedTrial, ScoredTrial, TrialRecord
from timebox.clock import Deadline, format_duration
from timebox.configs.benchmark import BenchmarkConfig
from timebox.run.json_values import Count, PositiveCount, Seconds, Share


class SignificanceTest(Struct, frozen=True, kw_only=True):
    """The test that compares recipes with the first one.

    Attributes:
        paired_by: what the two trials of a pair have in common.
        alpha: the significance level.
        correction: for several comparisons; null for one.
        min_pairs: number of complete pairs from which on the test is done.
    """

    name: str
    paired_by: str
    alpha: Share
    correction: str | None
    min_pairs: PositiveCount


class RecipeResult(Struct, frozen=True, kw_only=True):
    """The accuracies of a recipe: their number, mean, standard deviation and the 95 % interval of the mean."""

    recipe: str
    n: Count
    mean: Share | None
    sd: float | None
    interval: tuple[float, float] | None
    num_failed: Count
    num_late: Count
    wall_seconds: Seconds | None
    images_per_second: Seconds | None


class BenchmarkSummary(Struct, frozen=True, kw_only=True):
    """summary.json of a benchmark.

    Attributes:
        score: the split that was scored.
        trial_budget_seconds: the budget of one trial.
        num_trials: number of trials asked for.
        num_done: number of trials that were scored.
        complete_blocks: number of blocks in which every trial ended.
        stopped: why the benchmark ended early; null where it did not.
        test: the significance test.
        recipes: the results of each recipe.
        comparisons: of the other recipes with the first.
        notes: remarks that a reader of the results needs.
    """

    data: str
    score: Literal["val", "test"]
    trial_budget_seconds: Seconds
    num_trials: Count
    num_done: Count
    num_failed: Count
    num_late: Count
    complete_blocks: Count
    stopped: str | None
    test: SignificanceTest
    recipes: tuple[RecipeResult, ...]
    comparisons: tuple[ComparisonResult, ...]
    notes: tuple[str, ...]
    command: str
    budget_seconds: Seconds | None
    elapsed_seconds: float
    late: bool


def summarise(
    config: BenchmarkConfig, trials: Sequence[TrialRecord], command: str, deadline: Deadline, stopped: str | None
) -> BenchmarkSummary:
    """The content of summary.json.

    Args:
        trials: all trials, in order; of one that was repeated the last counts.
        command: the command line of the benchmark.
        stopped: the reason that the benchmark ended before its last trial, ``budget`` or ``signal``; else None.
    """
    labels = [variant.label for variant in config.variants]
    last = latest_trials(trials)
    scored = [trial for trial in last.values() if isinstance(trial, ScoredTrial)]
    complete = [block for block in range(config.seeds) if all((label, block) in last for label in labels)]
    accuracies = {
        label: {trial.block: trial.accuracy for trial in scored if trial.label == label and trial.block in complete}
        for label in labels
    }
    comparisons = compare(accuracies, labels)
    return BenchmarkSummary(
        data=config.data or "",
        score=config.score,
        trial_budget_seconds=config.trial_seconds,
        num_trials=config.seeds * len(labels),
        num_done=len(scored),
        num_failed=len(last) - len(scored),
        num_late=sum(trial.late is True for trial in last.values()),
        complete_blocks=len(complete),
        stopped=stopped,
        test=SignificanceTest(
            name="two-sided paired t-test",
            paired_by="seed and block",
            alpha=ALPHA,
            correction="Holm" if len(comparisons) > 1 else None,
            min_pairs=MIN_PAIRS,
        ),
        recipes=tuple(_recipe_result(label, [one for one in last.values() if one.label == label]) for label in labels),
        comparisons=tuple(comparisons),
        notes=tuple(_notes(config, last, len(complete))),
        command=command,
        budget_seconds=deadline.budget_seconds,
        elapsed_seconds=round(deadline.elapsed(), 3),
        late=deadline.late,
    )


def latest_trials(trials: Sequence[TrialRecord]) -> dict[tuple[str, int], TrialRecord]:
    """The last trial of each (label, block): one that failed is run again when a benchmark is resumed."""
    return {(trial.label, trial.block): trial for trial in trials}


def _recipe_result(label: str, trials: Sequence[TrialRecord]) -> RecipeResult:
    scored = [trial for trial in trials if isinstance(trial, ScoredTrial)]
    return RecipeResult(
        recipe=label,
        **vars(describe([trial.accuracy for trial in scored])),
        num_failed=len(trials) - len(scored),
        num_late=sum(trial.late is True for trial in trials),
        wall_seconds=round(fmean(trial.wall_seconds for trial in scored), 2) if scored else None,
        images_per_second=round(fmean(trial.images_per_second for trial in scored), 2) if scored else None,
    )


def _notes(config: BenchmarkConfig, last: Mapping[tuple[str, int], TrialRecord], num_complete: int) -> Iterator[str]:
    """Caveats: trials left out, failed or late, and differences between the trials."""
    num_incomplete = len({block for _, block in last}) - num_complete
    if num_incomplete and len(config.recipes) > 1:
        blocks = "block is" if num_incomplete == 1 else "blocks are"
        yield f"{num_incomplete} incomplete {blocks} kept in the log and left out of the paired test"
    for trial in last.values():
        which = f"{trial.label}, seed {trial.seed}"
        if isinstance(trial, FailedTrial):
            yield f"failed: {which}: {trial.failed}"
        elif trial.late is True:
            yield f"late: {which}: {trial.wall_seconds:.1f} s of {config.trial_budget}"
    scored = [trial for trial in last.values() if isinstance(trial, ScoredTrial)]
    for words, values in (
        ("commits of timebox", [trial.commit or "unknown" for trial in scored]),
        ("versions", [", ".join(f"{name} {version}" for name, version in one.versions.items()) for one in scored]),
        ("devices", [trial.device for trial in scored]),
        ("thread counts", [str(trial.threads) for trial in scored]),
    ):
        if len(different := dict.fromkeys(values)) > 1:
            yield f"the trials are of different {words}: {'; '.join(different)}"
    for variant in config.variants:
        yield from _differing_plans(variant.label, [trial for trial in scored if trial.label == variant.label])
    if num_seen := max((trial.num_seen_in_training for trial in scored), default=0):
        yield f"{num_seen} of the images scored are, pixel for pixel, among those trained on: the data hold some twice"


def _differing_plans(label: str, trials: Sequence[ScoredTrial]) -> Iterator[str]:
    """The fields of a recipe, planned anew in each trial, that differ between the trials."""
    plans = [{**trial.recipe, "precision": trial.precision} for trial in trials]
    values = {field: list(dict.fromkeys(str(plan.get(field)) for plan in plans)) for field in (plans or [{}])[0]}
    if differing := [f"{field} {', '.join(different)}" for field, different in values.items() if len(different) > 1]:
        yield f"{label} was not planned alike in all trials: {'; '.join(differing)}"


def progress_line(trial: TrialRecord, num_done: int, num_trials: int, label_width: int, seconds_left: float) -> str:
    """A trial in one line: the number done, recipe and seed, accuracy or failure, and the time that the rest takes."""
    which = f"{num_done:>{len(str(num_trials))}}/{num_trials}  {trial.label:<{label_width}}  seed {trial.seed}"
    left = f"  {format_duration(seconds_left)} left" if num_done < num_trials else ""
    if isinstance(trial, FailedTrial):
        return f"{which}  failed: {trial.failed}{left}"
    late = "  LATE" if trial.late is True else ""
    return f"{which}  {100 * trial.accuracy:6.2f} %  {trial.wall_seconds:.1f} s{late}{left}"
