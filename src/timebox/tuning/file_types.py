"""The JSON files of a search, as ``timebox tune`` writes them: tune.json, a line of trials.jsonl, and summary.json."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from timebox.run.json_values import Count, PositiveCount, RecipeFields, Seconds, Share


class SearchArguments(Struct, frozen=True, kw_only=True):
    """The arguments of ``timebox.tune`` that decide a search, under their names.

    Attributes:
        budget_seconds: the budget of the search.
        trial_seconds: the longest budget of one trial.
    """

    data: str
    budget_seconds: Seconds
    trial_seconds: Seconds
    recipe: str
    settings: tuple[str, ...]
    space: str | None
    sampler: str
    storage: str | None
    study: str
    workers: PositiveCount
    val: str | float | None
    test: str | float | None
    train_limit: Count | None
    split_seed: Count
    seed: Count
    coarse: bool
    group_by: str | None
    data_dir: str | None
    max_bad_share: Share
    cache: bool
    device: str
    precision: str


class SearchFile(Struct, frozen=True, kw_only=True):
    """tune.json: the arguments of a search.

    Attributes:
        version: the version of timebox that wrote the file.
        command: the command line that asks for the same search.
        asked: the arguments.
    """

    version: str
    command: str
    asked: SearchArguments


class MeasuredTraining(Struct, frozen=True, kw_only=True):
    """One training of a trial.

    Attributes:
        accuracy: share of the scored validation images that are right.
        num_images: number of validation images that were scored.
        recipe: all fields of the recipe, by name.
        train_images: number of training images.
        steps: number of training steps.
        epochs: passes over the training images.
        images_per_second: training images per second.
        seconds: duration of the training and of its scoring.
    """

    accuracy: Share
    num_images: Count
    recipe: RecipeFields
    train_images: Count
    steps: Count
    epochs: float
    images_per_second: Seconds
    seconds: Seconds


class SearchTrial(Struct, frozen=True, kw_only=True):
    """A line of trials.jsonl: a trial of the search.

    Attributes:
        phase: always ``search``.
        trial: number of the trial.
        state: ``stopped`` where a larger budget was not worth it.
        accuracy: under the largest budget; null where nothing was measured.
        budget_seconds: the largest budget that the trial had.
        settings: the settings of the trial, as ``FIELD=VALUE`` texts.
        params: the values that the sampler chose, by field.
        worker: the worker process.
        seconds: duration of the trial.
        retry_of: the trial that this one repeats after a failure of its worker.
        reason: the reason of a failure.
        trainings: a training for each budget.
    """

    phase: Literal["search"]
    trial: Count
    state: Literal["complete", "stopped", "failed"]
    accuracy: Share | None
    budget_seconds: Seconds | None
    settings: tuple[str, ...]
    params: RecipeFields
    worker: str | None
    seconds: Seconds | None
    retry_of: Count | None
    reason: str | None
    trainings: tuple[MeasuredTraining, ...]


class RepeatedTrial(Struct, frozen=True, kw_only=True):
    """A line of trials.jsonl: a training of one of the best trials, or of the start, with another seed.

    Attributes:
        phase: ``check`` for the last comparison of the start and the winner.
        trial: number of the trial; null for the settings that the search started from.
        settings: the settings of the trial, as ``FIELD=VALUE`` texts.
        repeat: number of the repeat, added to the seed.
        budget_seconds: the budget of the training.
        accuracy: share of the scored validation images that are right; 0 after a failure.
        reason: the reason of a failure.
    """

    phase: Literal["repeat", "check"]
    trial: Count | None
    settings: tuple[str, ...]
    repeat: Count
    budget_seconds: Seconds
    accuracy: Share
    reason: str | UnsetType = UNSET
    num_images: Count | UnsetType = UNSET
    recipe: RecipeFields | UnsetType = UNSET
    train_images: Count | UnsetType = UNSET
    steps: Count | UnsetType = UNSET
    epochs: float | UnsetType = UNSET
    images_per_second: Seconds | UnsetType = UNSET
    seconds: Seconds | UnsetType = UNSET


class Winner(Struct, frozen=True, kw_only=True):
    """The best settings: none, and no trial, where nothing was better than the start."""

    trial: Count | None
    settings: tuple[str, ...]


class Leader(Struct, frozen=True, kw_only=True):
    """Settings that were trained again with other seeds, and the accuracies of these repeats."""

    trial: Count | None
    settings: tuple[str, ...]
    accuracies: tuple[Share, ...]
    mean: Share
    sd: float | None


class CheckedAccuracy(Struct, frozen=True, kw_only=True):
    """The accuracy of the start or of the winner in the last comparison of the two."""

    settings: tuple[str, ...]
    accuracy: Share


class FinalRun(Struct, frozen=True, kw_only=True):
    """Values from summary.json of the final run."""

    test_accuracy: Share | None
    test_images: Count | None
    train_images: Count | None
    elapsed_seconds: float | None
    late: bool | None
    epochs: float | None


class SearchSummary(Struct, frozen=True, kw_only=True):
    """summary.json of a search.

    Attributes:
        command: the command line that asks for the same search.
        budget_seconds: the budget of the search.
        trial_budgets: the budgets of trials in seconds, from the smallest to the largest.
        images_a_trial: number of training images of a trial.
        workers: number of worker processes.
        num_trials: number of trials that ended.
        num_complete: number of trials that reached the largest budget.
        num_failed: number of trials that failed.
        winner: the settings of the final run.
        leaders: the settings that were repeated, the best first.
        check: the last comparison of the start and the winner.
        final: results of the final run.
        recipe: all fields of the winner's recipe, by name.
        why: why the start was kept, where it was.
        elapsed_seconds: time since the deadline's clock started.
        late: whether the deadline was missed.
    """

    command: str
    budget_seconds: Seconds
    trial_budgets: tuple[Seconds, ...]
    images_a_trial: Count
    workers: PositiveCount
    num_trials: Count
    num_complete: Count
    num_failed: Count
    winner: Winner
    leaders: tuple[Leader, ...]
    check: tuple[CheckedAccuracy, ...]
    final: FinalRun
    recipe: RecipeFields
    why: str
    elapsed_seconds: float
    late: bool
