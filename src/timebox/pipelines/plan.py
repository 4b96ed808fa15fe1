"""``timebox plan``: plans a training for a budget, without training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from timebox.clock import Deadline
from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.data import DataConfig
from timebox.configs.train import AUTO_INIT, TrainConfig
from timebox.configs.verbs import PlanConfig
from timebox.custom import Code
from timebox.jobs.context import RunContext
from timebox.jobs.data import DatasetReader
from timebox.jobs.job import plan_request, plan_training
from timebox.jobs.pretrained import begin_with_pretrained, largest_side_to_read
from timebox.planning.forecast import Forecast
from timebox.planning.plan import Plan
from timebox.progress import Reporter, show_progress
from timebox.recipes import AUTO, Recipe, RecipeLike, parse_recipe, recipe_request
from timebox.runtime.device import resolve_device
from timebox.runtime.torch_state import preserve_torch_state

# Seconds of the budgets, besides the one planned for, that the accuracy is forecast for.
FORECAST_BUDGETS = (60.0, 180.0, 600.0, 3600.0)


@dataclass(frozen=True, kw_only=True)
class PlannedTraining:
    """Result of :func:`plan`: the training that :func:`timebox.train` would do with the same arguments.

    Attributes:
        data_name: name of the data set.
        num_images: images of each split, by its name.
        num_classes: number of classes.
        image_shape: (height, width, channels) of the images as they are held, in pixels.
        recipe: with every field resolved.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        threads: number of threads, on a CPU.
        budget_seconds: the budget planned for.
        seconds: seconds of the budget by phase: ``start-up``, ``reading`` and ``planning`` as they took now;
            ``training`` and ``scoring`` as planned; ``reserve`` for saving, the end of the process and stalls.
        steps: number of optimizer steps expected.
        epochs: number of times that each training image is expected to be seen.
        step_seconds: expected duration of a step on whole images.
        pretrained: the pretrained features that the training begins with, and what a head on them gets right, in a
            line; None for a training from scratch.
        forecasts: the accuracy to expect on held-out images from scratch, in order of the budgets: of this budget, and
            of 1, 3, 10 and 60 minutes. Empty where the fit knows nothing of such data, or of the recipe; ``lines`` says
            why.
        lines: the decisions and their reasons, as a training reports them.
    """

    data_name: str
    num_images: Mapping[str, int]
    num_classes: int
    image_shape: tuple[int, ...]
    recipe: Recipe
    device: str
    precision: str
    threads: int
    budget_seconds: float
    seconds: Mapping[str, float]
    steps: int
    epochs: float
    step_seconds: float
    pretrained: str | None = None
    forecasts: tuple[Forecast, ...]
    lines: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        forecasts = [asdict(forecast) for forecast in self.forecasts]
        return {**vars(self), "recipe": self.recipe.as_dict(), "forecasts": forecasts}


@refuse_unknown_arguments
def plan(
    data: str | Path,
    *,
    budget: str | float = "10m",
    recipe: RecipeLike = AUTO,
    settings: Sequence[str] = (),
    network: Code | None = None,
    augment: Code | None = None,
    loss: Code | None = None,
    optimizer: Code | None = None,
    val: str | Path | float | None = None,
    test: str | Path | float | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    scoring: bool = True,
    split_seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    init: str = AUTO_INIT,
    data_dir: str | Path | None = None,
    coarse: bool = False,
    class_depth: int | None = None,
    group_by: str | None = None,
    max_bad_share: float = 0.1,
    allow_partial: bool = False,
    cache: bool = True,
    trust_code: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    deadline: Deadline | None = None,
) -> PlannedTraining:
    """Plan a training as :func:`timebox.train` would: read the data, measure this machine, train nothing.

    It takes as long as the beginning of the training: the reading, and at most a few seconds more. For the recipe
    ``auto`` it forecasts the accuracy with this budget, and with 1, 3, 10 and 60 minutes.

    Args:
        data: a path or a name.
        budget: the budget of the training, seconds or text such as ``"10m"``.
        init: ``auto``, ``scratch`` or ``pretrained``. Forecasts are of trainings from scratch.
        deadline: a clock already running, in place of ``budget``.

    All other arguments are those of :func:`timebox.train`.

    Raises:
        UsageError: for arguments that cannot work. BudgetError: for a budget too short to train in.
        DataError: for data that cannot be read.

    >>> import timebox
    >>> planned = timebox.plan("photos", budget="30s")
    >>> planned.num_images, planned.steps > 0
    ({'train': 54, 'val': 6}, True)
    """
    code = {"network": network, "augment": augment, "loss": loss, "optimizer": optimizer}
    config = PlanConfig.from_call({**locals(), **recipe_request(recipe, settings, code, trust_code)})
    deadline = deadline or Deadline.since_call(config.budget)
    with show_progress(reporter, progress, deadline.budget_seconds) as reporter:
        train_config = TrainConfig.of(
            DataConfig.of(config),
            **config.as_dict(
                ("recipe", "settings", "init", "scoring", "precision", "device", "cache", "max_bad_share")
            ),
            budget=config.budget,
        )
        reader = DatasetReader(
            config.data_dir, config.max_bad_share, reporter.note, deadline, None, config.cache, config.allow_partial
        )
        torch_device, spec = resolve_device(config.device), parse_recipe(config.recipe, config.settings)
        if spec.extends_auto:
            reader.largest_side = largest_side_to_read(train_config, spec, deadline.budget_seconds, torch_device)
        context = RunContext(deadline, reporter)
        with preserve_torch_state():
            with context.phase("reading"):
                loaded, data_splits = reader.read_splits(train_config.source, *spec.image_form)
                reader.hashes(data_splits.train)
            pretrained, lines = begin_with_pretrained(train_config, spec, data_splits, context, torch_device, False)
            with context.phase("planning"):
                budgets = (config.budget, *(seconds for seconds in FORECAST_BUDGETS if seconds != config.budget))
                request = replace(plan_request(train_config, data_splits, torch_device), forecast_budgets=budgets)
                made = plan_training(request, context, first_lines=(*data_splits.lines, *lines))
    train, splits = data_splits.train, {name: getattr(data_splits, name) for name in ("train", "val", "test")}
    return PlannedTraining(
        data_name=loaded.name,
        num_images={name: len(split) for name, split in splits.items() if split is not None},
        num_classes=train.num_classes,
        image_shape=train.image_shape,
        recipe=made.recipe,
        device=made.device.type,
        precision=made.precision,
        threads=made.threads,
        budget_seconds=config.budget,
        seconds=_seconds_by_phase(made, deadline),
        steps=made.expected_steps,
        epochs=made.expected_steps * made.recipe.batch_size / len(train),
        step_seconds=made.step_seconds,
        pretrained=lines[0] if pretrained else None,
        forecasts=tuple(sorted(made.forecasts, key=lambda forecast: forecast.budget_seconds)),
        lines=made.lines,
    )


def _seconds_by_phase(made: Plan, deadline: Deadline) -> dict[str, float]:
    spent = deadline.phases_so_far()
    spent["start-up"] += spent.pop("other", 0.0)
    training_seconds = deadline.remaining() - made.scoring_seconds - made.finish_seconds
    return {
        **spent,
        "training": training_seconds,
        "scoring": made.scoring_seconds,
        "reserve": made.finish_seconds,
    }
