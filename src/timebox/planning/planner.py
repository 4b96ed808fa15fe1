"""Planning: select recipe and precision, and split the budget; or plan a number of steps from the data alone."""

from dataclasses import replace
from math import inf

import torch

from timebox.builders import build_resizing
from timebox.clock import Deadline, format_duration
from timebox.evaluation.inference import inference_batch_size
from timebox.planning.auto import auto_recipe, max_batch_size
from timebox.planning.batch_size import choose_micro_batch
from timebox.planning.budget import MAX_VALIDATION_IMAGES, Budget, BudgetSplit
from timebox.planning.dataset_profile import check_crop_padding, check_image_sides, profile_dataset
from timebox.planning.describe import describe_batch_change, describe_device, describe_processes, describe_split
from timebox.planning.forecast import NO_TIME, Forecast, UnknownAccuracyError
from timebox.planning.plan import Plan
from timebox.planning.selection import (
    SCORING_PER_TRAINING,
    PlanRequest,
    Selection,
    fit_batch,
    model_cost,
    select_recipe,
)
from timebox.planning.throughput.benchmark import ThroughputBenchmark
from timebox.recipes import Recipe
from timebox.runtime.precision import resolve_precision
from timebox.runtime.write_speed import WriteSpeed

# Assumed speed in FLOP/s and budget in seconds where steps are counted and no clock may be read: two CPU cores in fp32.
REFERENCE_FLOPS = 150e9
REFERENCE_SECONDS = 60.0
# Before a budget is refused, speed is measured again, so often and so long: other programs only make it seem slower.
MAX_REMEASUREMENTS, MAX_REFUSAL_SECONDS = 2, 0.8
# The plan's line where a pretrained classifier has to do.
NO_TIME_TO_TRAIN = "no time is left to train a network: the pretrained classifier predicts alone"


def make_plan(request: PlanRequest, deadline: Deadline, num_steps: int | None, write_speed: WriteSpeed) -> Plan:
    """Plan a training for a deadline or for a number of steps.

    With a deadline, throughput is measured, and torch is left with the number of threads that is fastest. With a number
    of steps no clock is read, and the plan depends on the data alone.

    Raises:
        UsageError: for a recipe that does not fit the data. BudgetError: for a budget too short to train in.
    """
    check_image_sides(request.train)
    if request.spec.fixed:
        check_crop_padding(request.spec.fixed, request.train)
    if num_steps is not None:
        return _plan_for_steps(request, num_steps)
    budget = Budget(deadline, request.scoring, write_speed, deadline.elapsed())
    return _plan_for_deadline(request, budget, select_recipe(request, budget))


def _plan_for_steps(request: PlanRequest, num_steps: int) -> Plan:
    """The plan for a number of steps, from the data alone."""
    train, device, group = request.train, request.hardware.device, request.hardware.group
    precision, reason = resolve_precision(request.hardware.precision, device, None)
    benchmark = ThroughputBenchmark(train, device, precision, 0.0)
    lines, recipe = describe_device(device, precision, reason), request.spec.fixed
    if recipe is None:
        recipe, reasons = _auto_recipe_for_steps(request, num_steps, benchmark)
        reference = f"{format_duration(REFERENCE_SECONDS)} at {REFERENCE_FLOPS / 1e9:.0f} GFLOP/s"
        lines += [f"planned for {num_steps} steps, or for {reference} if that is less", *reasons]
    recipe = fit_batch(request, recipe, inf)
    image_seconds = 0.0 if device.type == "cuda" else benchmark.flops_per_image(recipe) / REFERENCE_FLOPS
    micro_batch, micro_batch_lines = choose_micro_batch(recipe, group.size, image_seconds)
    return Plan(
        recipe=recipe,
        device=device,
        threads=torch.get_num_threads(),
        precision=precision,
        num_steps=num_steps,
        micro_batch=micro_batch,
        expected_steps=num_steps,
        num_val_images=min(request.scoring.num_val, MAX_VALIDATION_IMAGES),
        scoring_batch=inference_batch_size(device, 0.0),
        lines=(*lines, *describe_processes(recipe, group, ()), *micro_batch_lines),
    )


def _auto_recipe_for_steps(
    request: PlanRequest, num_steps: int, benchmark: ThroughputBenchmark
) -> tuple[Recipe, list[str]]:
    """The automatic recipe for the reference speed and budget, and at most ``num_steps`` of the largest batch."""
    max_images = num_steps * max_batch_size(len(request.train))

    def images_affordable(recipe: Recipe) -> float:
        seconds_per_image = max(benchmark.flops_per_image(recipe) / REFERENCE_FLOPS, REFERENCE_SECONDS / max_images)
        return build_resizing(recipe).steps_in(REFERENCE_SECONDS / seconds_per_image)

    recipe, reasons = auto_recipe(profile_dataset(request.train), images_affordable, request.spec.overrides)
    check_crop_padding(recipe, request.train)
    return recipe, reasons


def _plan_for_deadline(request: PlanRequest, budget: Budget, selection: Selection) -> Plan:
    """The plan for a deadline: reserve time for scoring and saving, and train for the time that is left."""
    benchmark, group, resizing = selection.benchmark, request.hardware.group, build_resizing(selection.recipe)
    image_seconds = benchmark.training_seconds_per_image(selection.recipe)
    scoring_image_seconds = SCORING_PER_TRAINING * image_seconds
    if not selection.is_quick:
        scoring_image_seconds = benchmark.scoring_seconds_per_image(selection.recipe)
    model = model_cost(benchmark, selection.recipe, scoring_image_seconds)

    def fit(image_seconds: float) -> tuple[Recipe, float]:
        """The recipe with the batch size for a speed, and the seconds of a step."""
        num_images = resizing.steps_in(budget.split_for(model).training_seconds / image_seconds)
        fitted = fit_batch(request, selection.recipe, num_images)
        return fitted, fitted.batch_size * image_seconds

    recipe, step_seconds = fit(image_seconds)
    for _ in range(MAX_REMEASUREMENTS):
        planning_seconds = budget.deadline.elapsed() - budget.planning_started
        if budget.has_time_for(model, step_seconds) or planning_seconds > MAX_REFUSAL_SECONDS:
            break
        image_seconds = benchmark.remeasure(selection.recipe)
        recipe, step_seconds = fit(image_seconds)
    is_too_short = request.has_pretrained and not budget.has_time_for(model, step_seconds)
    if not is_too_short:
        budget.check_training_time(model, step_seconds, request.source)
    split = budget.split_for(model)
    micro_batch, micro_batch_lines = choose_micro_batch(recipe, group.size, image_seconds)
    plan = Plan(
        recipe=recipe,
        device=benchmark.device,
        threads=torch.get_num_threads(),
        max_threads=request.hardware.tunable_threads,
        precision=benchmark.precision,
        num_steps=None,
        micro_batch=micro_batch,
        step_seconds=step_seconds,
        expected_steps=0 if is_too_short else int(resizing.steps_in(split.training_seconds / step_seconds)),
        scoring_seconds=split.scoring_seconds,
        saving_seconds=split.saving_seconds,
        finish_seconds=split.finish_seconds,
        num_val_images=0 if is_too_short else budget.num_val_images(scoring_image_seconds),
        scoring_batch=inference_batch_size(benchmark.device, scoring_image_seconds),
        lines=(
            *selection.lines,
            *describe_batch_change(selection.recipe, recipe),
            *describe_processes(recipe, group, benchmark.seconds_per_rank),
            *micro_batch_lines,
        ),
    )
    if is_too_short:
        return replace(plan, lines=(*plan.lines, NO_TIME_TO_TRAIN))
    speed = resizing.steps_in(1 / image_seconds)
    forecasts, forecast_lines = _forecasts(request, budget, selection, split)
    lines = (*plan.lines, describe_split(plan, split, speed, len(request.train)), *forecast_lines)
    return replace(plan, forecasts=forecasts, lines=lines)


def _forecasts(
    request: PlanRequest, budget: Budget, selection: Selection, split: BudgetSplit
) -> tuple[tuple[Forecast, ...], list[str]]:
    """The forecasts that are asked for, and a line about the first, which is that of this budget."""
    if not request.forecast_budgets:
        return (), []
    if not request.has_forecast:
        return (), ["no forecast of the accuracy: it is fitted to trainings of the recipe auto without changes"]
    if selection.forecaster is None:
        return (), [f"no forecast of the accuracy: {NO_TIME}"]
    forecasts: list[Forecast] = []
    for seconds in request.forecast_budgets:
        try:
            forecasts.append(selection.forecaster.forecast(seconds, budget.training_seconds_of(split, seconds)))
        except UnknownAccuracyError as error:
            if not forecasts:
                return (), [f"no forecast of the accuracy: {error}"]
    return tuple(forecasts), [f"accuracy to expect: {forecasts[0]}"]
