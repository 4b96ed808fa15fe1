"""The JSON files of a benchmark: benchmark.json, a line of trials.jsonl, and summary.json."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from timebox.run.json_values import Count, PhaseSeconds, PositiveCount, RecipeFields, Seconds, Share


class BenchmarkArguments(Struct, frozen=True, kw_only=True):
    """The arguments of ``timebox.benchmark`` that decide its trials, under their names."""

    data: str
    recipes: tuple[str, ...]
    seeds: PositiveCount
    trial_budget: str
    settings: tuple[str, ...]
    train_limit: Count | None
    split_seed: Count
    val: str | float | None
    coarse: bool
    data_dir: str | None
    max_bad_share: Share
    device: str
    precision: str
    score: Literal["val", "test"]
    tta: str


class Environment(Struct, frozen=True, kw_only=True):
    """The machine and the versions that a benchmark ran with.

    Attributes:
        processor: name of the processor.
        cores: number of its cores.
        threads: number of threads that the container allows.
        commit: git commit of timebox's source; null outside a checkout.
    """

    processor: str
    cores: PositiveCount | None
    threads: PositiveCount
    memory_bytes: Count | None
    system: str
    device: str
    versions: dict[str, str]
    commit: str | None


class BenchmarkFile(Struct, frozen=True, kw_only=True):
    """benchmark.json: the arguments of a benchmark, and the machine.

    Attributes:
        started: local time at which the benchmark was started.
        data_name: name of the data.
        environment: the machine and the versions.
        command: the command line that asks for the same benchmark, paths cut to their last part.
        asked: the arguments.
    """

    started: str
    data_name: str
    environment: Environment
    command: str
    asked: BenchmarkArguments


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


class ComparisonResult(Struct, frozen=True, kw_only=True):
    """The difference of a recipe from the first one.

    Attributes:
        mean_difference: mean of the recipe's accuracies less those of the first.
        interval: 95 % interval of the difference.
        p: p of the test; null where it was not done.
        p_corrected: p after the correction for several comparisons.
        significant: whether p_corrected is below alpha; null where the test was not done.
        verdict: the result in words.
    """

    recipe: str
    against: str
    num_pairs: Count
    mean_difference: float | None
    interval: tuple[float, float] | None
    p: Share | None
    p_corrected: Share | None
    significant: bool | None
    verdict: str


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
