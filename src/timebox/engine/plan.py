"""The plan: what is trained, in which precision, and how the budget is divided.

Everything a plan rests on is either known from the data or measured on this device within about two seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch

from timebox.clock import Deadline, format_duration
from timebox.data.dataset import ImageDataset
from timebox.data.mirror import mirror_test
from timebox.engine.bench import PROBE_RECIPE, Bench
from timebox.engine.precision import PRECISIONS, WORTHWHILE, resolve_precision
from timebox.errors import BudgetError, UsageError
from timebox.recipe import AUTO, Recipe, Task, auto_recipe, get_recipe, parse_settings

# Where no clock may be read, auto plans for this machine and this budget: two CPU cores in fp32, one minute.
REFERENCE_FLOPS = 150e9
REFERENCE_SECONDS = 60.0
# The batch is never halved below this, nor a schedule made of fewer steps than these.
SMALLEST_BATCH = 32
FEWEST_STEPS = 10
# Pixels: what is left of a smaller image after three halvings is nothing; a larger one is no input for this network.
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
# Shares of the budget. Together with what validation takes on the way, scoring stays within a tenth.
FINAL_SCORING_SHARE = 0.07
VALIDATION_SHARE = 0.02
NUM_VALIDATIONS = 5
# During training a sample is enough to see where it goes; with fewer than these images it would mislead.
MOST_VALIDATION_IMAGES = 2000
FEWEST_VALIDATION_IMAGES = 50
# Kept free at the end, besides twice the measured cost of saving: leaving the interpreter, and a machine that stutters.
EXIT_SECONDS = 0.6
STUTTER_SHARE = 0.005


@dataclass(frozen=True)
class Plan:
    """How a budget, or a number of steps, is going to be used.

    Attributes:
        recipe: resolved: no field is left for later.
        num_steps: fixed number of steps; None where the clock decides.
        step_seconds: estimated seconds per step; 0 where no clock is read.
        expected_steps: how many steps that makes.
        scoring_seconds: set aside for scoring after training; infinite where no clock is read.
        finish_seconds: set aside for saving and leaving.
        num_val_images: images scored at each validation during training, 0 for none.
        lines: what was chosen and why, to be shown.
    """

    recipe: Recipe
    device: torch.device
    precision: str
    num_steps: int | None
    step_seconds: float
    expected_steps: int
    scoring_seconds: float
    finish_seconds: float
    num_val_images: int
    lines: tuple[str, ...]

    @property
    def validate_at(self) -> list[float]:
        """Progress after which to validate. The end is left out: it is scored with everything else."""
        return [i / NUM_VALIDATIONS for i in range(1, NUM_VALIDATIONS)] if self.num_val_images else []


@dataclass(frozen=True)
class Scoring:
    """How many images there are to score, and in how many views each."""

    num_val: int
    num_test: int

    def seconds(self, seconds_per_image: float, tta: str) -> float:
        """Time it takes to score all of them after training."""
        return (self.num_val + self.num_test) * (2 if tta == "mirror" else 1) * seconds_per_image


def make_plan(
    recipe_name: str,
    settings: Sequence[str],
    train: ImageDataset,
    scoring: Scoring,
    device: torch.device,
    precision: str,
    deadline: Deadline,
    num_steps: int | None,
    saving_seconds: float,
    source: str,
) -> Plan:
    """Resolve the recipe and divide the time.

    Args:
        recipe_name: ``auto``, a built-in name or a TOML file.
        settings: ``FIELD=VALUE`` texts that override the recipe.
        saving_seconds: measured cost of writing a model of about this size.
        source: what the data is called in messages.
    Raises:
        UsageError: for a recipe that does not fit the data. BudgetError: for a budget too short to train in.
    """
    _check_size(train)
    timed = num_steps is None
    overrides = parse_settings(settings)
    known = PROBE_RECIPE if recipe_name == AUTO else get_recipe(recipe_name).replace(**overrides)
    benches = {name: Bench(train, device, name) for name in PRECISIONS}
    precision_name, why = resolve_precision(
        precision, device, (lambda name: benches[name].training_seconds_per_image(known)) if timed else None
    )
    bench = benches[precision_name]
    budget = deadline.budget_seconds or 0.0
    finish_seconds = 2 * saving_seconds + EXIT_SECONDS + STUTTER_SHARE * budget if timed else 0.0
    lines = [f"{_device_name(device)}, {precision_name} ({why})"]
    if recipe_name == AUTO and not timed:
        speed = f"{REFERENCE_FLOPS / 1e9:.0f} GFLOP/s"
        lines.append(f"planned as for {format_duration(REFERENCE_SECONDS)} at {speed}, since no clock is read")
    if recipe_name == AUTO:
        seconds = (1 - FINAL_SCORING_SHARE) * (deadline.remaining() - finish_seconds) if timed else REFERENCE_SECONDS
        recipe, reasons = _auto(train, max(seconds, 0.0), bench.flops_per_second() if timed else REFERENCE_FLOPS, bench)
        lines += reasons
        recipe = recipe.replace(**overrides)
    else:
        recipe = known
    _check_fit(recipe, train)
    draft = Plan(recipe, device, precision_name, num_steps, 0.0, 0, float("inf"), finish_seconds, 0, tuple(lines))
    if precision == "auto" and timed:
        draft = _in_fastest_precision(draft, benches)
        bench = benches[draft.precision]
    if num_steps is None:
        return _with_budget(draft, "batch_size" in overrides, len(train), scoring, bench, deadline, source)
    return _with_steps(draft, num_steps, "batch_size" in overrides, len(train), scoring)


def _in_fastest_precision(draft: Plan, benches: dict[str, Bench]) -> Plan:
    """The plan in float32 where the network chosen is not faster in the precision that the probe was fastest in."""
    if draft.precision == "fp32":
        return draft
    seconds = {name: benches[name].training_seconds_per_image(draft.recipe) for name in (draft.precision, "fp32")}
    ratio = seconds["fp32"] / seconds[draft.precision]
    if ratio >= WORTHWHILE:
        return draft
    line = f"fp32 after all: {draft.precision} runs this network at {ratio:.1f}x its speed"
    return replace(draft, precision="fp32", lines=(*draft.lines, line))


def _with_steps(draft: Plan, num_steps: int, batch_fixed: bool, num_images: int, scoring: Scoring) -> Plan:
    """The plan for a fixed number of steps, from the data alone."""
    recipe = draft.recipe if batch_fixed else _with_fitting_batch(draft.recipe, float("inf"), num_images)
    return replace(
        draft, recipe=recipe, expected_steps=num_steps, num_val_images=min(scoring.num_val, MOST_VALIDATION_IMAGES)
    )


def _with_budget(
    draft: Plan, batch_fixed: bool, num_images: int, scoring: Scoring, bench: Bench, deadline: Deadline, source: str
) -> Plan:
    """The plan for a deadline: measure the network, set time aside for scoring, and see what training gets."""
    recipe, budget = draft.recipe, deadline.budget_seconds or 0.0
    image_seconds = bench.training_seconds_per_image(recipe)
    scoring_image_seconds = bench.scoring_seconds_per_image(recipe)
    scoring_seconds = min(FINAL_SCORING_SHARE * budget, _scoring_estimate(scoring, scoring_image_seconds, recipe.tta))
    train_seconds = deadline.remaining() - scoring_seconds - draft.finish_seconds
    if not batch_fixed:
        recipe = _with_fitting_batch(recipe, train_seconds / image_seconds, num_images)
    step_seconds = recipe.batch_size * image_seconds
    _check_budget(deadline, train_seconds, FEWEST_STEPS * step_seconds, source)
    expected_steps = int(train_seconds / step_seconds)
    affordable = VALIDATION_SHARE * budget / (NUM_VALIDATIONS - 1) / scoring_image_seconds
    num_val_images = min(scoring.num_val, int(affordable), MOST_VALIDATION_IMAGES)
    enough = num_val_images >= min(scoring.num_val, FEWEST_VALIDATION_IMAGES)
    epochs = expected_steps * recipe.batch_size / num_images
    lines = [
        f"{format_duration(train_seconds)} of training at about {1 / image_seconds:.0f} images/s: "
        f"{expected_steps} steps, {epochs:.1f} epochs; {format_duration(scoring_seconds)} for scoring, "
        f"{format_duration(draft.finish_seconds)} in reserve"
    ]
    if recipe is not draft.recipe:
        lines.insert(
            0,
            f"batch cut from {draft.recipe.batch_size} to {recipe.batch_size} and rate from {draft.recipe.max_lr:g} to "
            f"{recipe.max_lr:g}: data and budget would give too few steps",
        )
    return replace(
        draft,
        recipe=recipe,
        step_seconds=step_seconds,
        expected_steps=expected_steps,
        scoring_seconds=scoring_seconds,
        num_val_images=num_val_images if enough else 0,
        lines=(*draft.lines, *lines),
    )


def _auto(train: ImageDataset, train_seconds: float, speed: float, bench: Bench) -> tuple[Recipe, list[str]]:
    mirror = mirror_test(train)
    task = Task(
        num_images=len(train),
        side=min(train.image_shape[:2]),
        num_classes=train.num_classes,
        mirror_allowed=mirror.allowed,
    )
    recipe, reasons = auto_recipe(task, lambda width: train_seconds * speed / bench.flops_per_image(width))
    evidence = f"nearest neighbours right: {mirror.accuracy:.0%} as they are, {mirror.mirrored_accuracy:.0%} mirrored"
    return recipe, [*reasons, evidence]


def _scoring_estimate(scoring: Scoring, seconds_per_image: float, tta: str) -> float:
    """Seconds to set aside: what was measured on a few images, and a margin, as training takes all the rest."""
    estimate = scoring.seconds(seconds_per_image, tta)
    return 1.5 * estimate + 0.5 if estimate else 0.0


def _with_fitting_batch(recipe: Recipe, images_affordable: float, num_images: int) -> Recipe:
    """The recipe, its batch halved, and its rate with it, until the data fill it and the budget buys ``min_steps``."""
    batch, lr = recipe.batch_size, recipe.max_lr
    while batch % 2 == 0 and batch // 2 >= SMALLEST_BATCH:
        if batch <= num_images and images_affordable / batch >= recipe.min_steps:
            break
        batch, lr = batch // 2, lr / 2
    return recipe if batch == recipe.batch_size else recipe.replace(batch_size=batch, max_lr=lr)


def _check_size(train: ImageDataset) -> None:
    height, width, _ = train.image_shape
    if min(height, width) >= SMALLEST_SIDE and max(height, width) <= LARGEST_SIDE:
        return
    problem, side = ("small", SMALLEST_SIDE) if min(height, width) < SMALLEST_SIDE else ("large", 64)
    raise UsageError(
        f"images of {width}x{height} pixels are too {problem}: both sides must be {SMALLEST_SIDE} to {LARGEST_SIDE}; "
        f"use --set image_size={side} to have them scaled"
    )


def _check_fit(recipe: Recipe, train: ImageDataset) -> None:
    """Raise UsageError where a recipe asks for what these images cannot give."""
    side = min(train.image_shape[:2])
    if recipe.crop_padding >= side:
        raise UsageError(
            f"crop_padding {recipe.crop_padding} must be smaller than the images' side of {side} pixels; "
            f"use --set crop_padding={max(1, side // 8)}"
        )


def _check_budget(deadline: Deadline, train_seconds: float, needed_seconds: float, source: str) -> None:
    if train_seconds >= needed_seconds:
        return
    budget = deadline.budget_seconds or 0
    smallest = ceil(1.1 * (budget - train_seconds + needed_seconds) + 0.5)
    raise BudgetError(
        f"budget {format_duration(budget)} is too short: reading {source!r} and planning took "
        f"{format_duration(deadline.elapsed())}, and {FEWEST_STEPS} steps take about {format_duration(needed_seconds)} "
        f"here; use at least {smallest}s"
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
