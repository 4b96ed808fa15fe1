"""``timebox lr-find``: the learning-rate range test (L. Smith, arXiv 1506.01186) of a recipe on a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timebox.clock import Deadline, format_duration, parse_budget
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.data import DataConfig
from timebox.configs.lr_find import LrFindConfig
from timebox.configs.train import TrainConfig
from timebox.data.reading.time_limit import budget_for_share
from timebox.errors import BudgetError, UsageError
from timebox.file_versions import LR_FIND_FORMAT
from timebox.files import write_whole, written
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import TrainingJob, plan_request, plan_training
from timebox.pipelines.learning_rate import run_range_test
from timebox.planning.image_size import largest_side_for
from timebox.planning.plan import Plan
from timebox.progress import Reporter, show_progress
from timebox.recipes import AUTO, Recipe, RecipeLike, parse_recipe, recipe_request
from timebox.reporting.lr_chart import lr_range_chart
from timebox.run.directories.output import make_default_directory, resolve_link
from timebox.run.files import to_json
from timebox.runtime.device import resolve_device
from timebox.runtime.torch_state import preserve_torch_state
from timebox.training.lr_range_test import MIN_STEPS, LRRangeTest, SweepPacer
from timebox.training.pacer import Pacer

RESULT, CHART = "lr_find.json", "lr_find.svg"
# The tested range, as multiples of the recipe's max_lr.
MIN_LR_FACTOR, MAX_LR_FACTOR = 1e-3, 1e2
# More steps do not make the curve clearer.
MAX_STEPS = 200
# For exiting, and for a slow last step.
RESERVE_SECONDS = 1.5
# Of the smallest budget that is named. Most of the time goes into planning a long training, which other load disturbs.
MARGIN = 1.6
STEPS_BETWEEN_NOTES = 25


@dataclass(frozen=True, eq=False)
class LRRange:
    """Result of :func:`lr_find`.

    Attributes:
        recipe: the tested recipe, with one network.
        path: the directory with lr_find.json and lr_find.svg.
    """

    test: LRRangeTest
    recipe: Recipe
    path: Path

    @property
    def filter_lr(self) -> float | None:
        """Muon's learning rate for filters, scaled like ``max_lr``; None under SGD, or without a suggestion."""
        if self.recipe.optimizer != "muon" or self.test.suggestion is None:
            return None
        return self.recipe.filter_lr * self.test.suggestion / self.recipe.max_lr

    @property
    def settings(self) -> list[str]:
        """The suggestion as ``--set`` options of ``train``."""
        values = (("max_lr", self.test.suggestion), ("filter_lr", self.filter_lr))
        return [f"{name}={value:.3g}" for name, value in values if value is not None]

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        test = self.test
        return {
            "suggestion": test.suggestion,
            "bound": test.bound,
            "reason": test.reason,
            "filter_lr": self.filter_lr,
            "settings": self.settings,
            "diverged": test.diverged,
            "steps": len(test.lrs),
            "lr": test.lrs.tolist(),
            "loss": test.losses.tolist(),
            "smoothed_loss": test.smoothed.tolist(),
            "recipe": self.recipe.as_dict(),
        }


@refuse_unknown_arguments
def lr_find(
    data: str | Path,
    *,
    budget: str | float = "55s",
    train_budget: str | float = "10m",
    recipe: RecipeLike = AUTO,
    settings: Sequence[str] = (),
    low: float | None = None,
    high: float | None = None,
    train_limit: int | None = None,
    split_seed: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    coarse: bool = False,
    class_depth: int | None = None,
    max_bad_share: float = 0.1,
    cache: bool = True,
    trust_code: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    deadline: Deadline | None = None,
) -> LRRange:
    """Test learning rates from far too small to far too large on the first steps of a training.

    The recipe is planned as for a training of ``train_budget``; of several networks one is tested, on whole images.

    Args:
        data: a path or a name. Its training images are used.
        budget: seconds or text; the test takes no longer, reading and planning included.
        train_budget: the budget of the training that the rate is wanted for. ``auto`` and the batch follow from it.
        low, high: the rates to begin and to end with; default a thousandth and a hundred times the recipe's ``max_lr``.
        out: where lr_find.json and lr_find.svg go, default ``runs/<data>-lr-<date>-<time>``.

    All other arguments are those of :func:`timebox.train`.

    Raises:
        UsageError, BudgetError: for arguments that cannot work. DataError: for data that cannot be read.
        OutputError: for a directory that cannot be written to.

    >>> import timebox
    >>> result = timebox.lr_find("photos", budget="20s", train_budget="30s", out="runs/lr")
    >>> result.path.name, len(result.test.lrs) >= 20
    ('lr', True)
    """
    config = LrFindConfig.from_call({**locals(), **recipe_request(recipe, settings, {}, trust_code)})
    deadline = deadline or Deadline.since_call(config.budget)
    with show_progress(reporter, progress, deadline.budget_seconds) as reporter:
        source = DataConfig.of(config, val="none", test="none")
        options = config.as_dict(("recipe", "settings", "seed", "precision"))
        train_config = TrainConfig.of(source, **options, scoring=False)
        planned_for = Deadline(parse_budget(config.train_budget))
        training_device = resolve_device(device)
        spec = parse_recipe(config.recipe, config.settings)
        image_size, image_fit = spec.image_form
        reader = DatasetReader(config.data_dir, max_bad_share, reporter.note, deadline, cache=cache)
        if spec.extends_auto:
            reader.largest_side = largest_side_for(planned_for.budget_seconds, training_device)
        with preserve_torch_state():
            reporter.phase("reading")
            loaded, data_splits = reader.read_splits(source, image_size, image_fit)
            reporter.phase("planning")
            try:
                request = plan_request(train_config, data_splits, training_device)
                plan = plan_training(request, RunContext(planned_for, reporter), first_lines=data_splits.lines)
            except BudgetError as error:  # of the training to come
                raise BudgetError(f"train_{error}") from error
            # One network of the ensemble, at full image size from the first step on.
            recipe_of_one, step_seconds = plan.recipe.replace(ensemble_size=1, start_size=1.0), plan.step_seconds
            plan = replace(plan, recipe=recipe_of_one, step_seconds=step_seconds / plan.recipe.ensemble_size)
            job, lrs = TrainingJob(train_config, plan, data_splits), _lr_range(plan.recipe, config.low, config.high)
            reporter.phase("testing rates")
            test = _run_test(job, lrs, _build_pacer(plan, deadline), reporter)
    out = resolve_link(Path(config.out)) if config.out else make_default_directory(f"{loaded.name}-lr")
    result = LRRange(test, plan.recipe, out)
    with written(repr(str(result.path))):
        result.path.mkdir(parents=True, exist_ok=True)
        write_whole(result.path / RESULT, to_json(LR_FIND_FORMAT.numbered(result.as_dict())))
        if len(test.lrs) > 1:
            write_whole(result.path / CHART, lr_range_chart(test).encode())
    return result


def _lr_range(recipe: Recipe, low: float | None, high: float | None) -> tuple[float, float]:
    """The lowest and the highest learning rate to test; by default as multiples of the recipe's."""
    low = MIN_LR_FACTOR * recipe.max_lr if low is None else low
    high = MAX_LR_FACTOR * recipe.max_lr if high is None else high
    if not 0 < low < high < float("inf"):
        raise UsageError(f"rates from {low:g} to {high:g}: the first must be above 0 and below the second")
    return low, high


def _build_pacer(plan: Plan, deadline: Deadline) -> Pacer:
    """A pacer of MAX_STEPS steps; of fewer where time is too short. Raises BudgetError below MIN_STEPS."""

    def seconds_left() -> float:
        return deadline.remaining() - RESERVE_SECONDS

    needed_seconds, elapsed_seconds = MIN_STEPS * plan.step_seconds, deadline.elapsed()
    reading_seconds = deadline.phases_so_far().get("reading", 0.0)
    if seconds_left() < needed_seconds:
        raise BudgetError.too_short(
            f"budget {format_duration(deadline.budget_seconds or 0.0)} is too short: reading and planning took "
            f"{format_duration(elapsed_seconds)}, and {MIN_STEPS} steps take about {format_duration(needed_seconds)} "
            "here",
            max(
                MARGIN * (elapsed_seconds + needed_seconds) + RESERVE_SECONDS,
                budget_for_share(elapsed_seconds - reading_seconds, MARGIN * reading_seconds),
            ),
        )
    return SweepPacer(MAX_STEPS, seconds_left, plan.step_seconds, deadline.elapsed)


def _run_test(job: TrainingJob, lrs: tuple[float, float], pacer: Pacer, reporter: Reporter) -> LRRangeTest:
    def notify(step: int, lr: float, loss: float) -> None:
        if step % STEPS_BETWEEN_NOTES == 0:
            reporter.note(f"rate {lr:.2g}: loss {loss:.3g}")

    return run_range_test(job, lrs, pacer, notify)
