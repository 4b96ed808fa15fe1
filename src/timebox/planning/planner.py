"""Planning: profile the data, measure the throughput, choose recipe and precision, and split the budget."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import torch

from timebox.builders import build_resizing
from timebox.clock import Deadline, format_duration
from timebox.data.dataset import ImageDataset
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.evaluation.inference import inference_batch_size
from timebox.planning.auto import auto_recipe, max_batch_size
from timebox.planning.batch_size import choose_micro_batch, fit_batch_size, fit_batch_to_processes
from timebox.planning.budget import MAX_VALIDATION_IMAGES, MIN_STEPS, Budget, ModelCost, ScoringLoad
from timebox.planning.dataset_profile import DatasetProfile, check_crop_padding, check_image_sides, profile_dataset
from timebox.planning.describe import describe_batch_change, describe_device, describe_processes, describe_split
from timebox.planning.distributed_throughput import build_throughput_benchmark
from timebox.planning.plan import Plan
from timebox.planning.throughput import NARROW_PROBE, WIDE_PROBE, ThroughputBenchmark
from timebox.recipe import Recipe, RecipeSpec, parse_recipe
from timebox.runtime.precision import MAX_REPEATS, MIN_RATIO_KEPT, PRECISIONS, resolve_precision
from timebox.runtime.threads import tune_num_threads
from timebox.runtime.write_speed import WriteSpeed

# Assumed speed in FLOP/s and budget in seconds where steps are counted and no clock may be read: two CPU cores in fp32.
REFERENCE_FLOPS = 150e9
REFERENCE_SECONDS = 60.0
# Time for measuring: a fraction of the budget, within bounds in seconds. Of the six or more networks measured, about
# three are so large that each takes all the time that a measurement may take.
PLANNING_SHARE, MIN_PLANNING_SECONDS, MAX_PLANNING_SECONDS = 0.05, 0.6, 4.0
NUM_LARGE_MEASUREMENTS = 3
# Seconds left below which a CPU measures the narrow probe only, in fp32 only.
SHORT_BUDGET_SECONDS = 8.5
# Seconds left from which all is measured that a selection wants to know: these, and the time of MIN_STEPS small
# steps on a very slow machine, of so many FLOP/s.
LONG_BUDGET_SECONDS, SLOW_FLOPS = 30.0, 2e9
# Time limit for the first measurement on a CPU, in seconds; and how many times as long as that one all measurements of
# a plan may take on a busy machine, and those that tune the number of threads.
FIRST_MEASUREMENT_SECONDS, NUM_MEASUREMENTS, NUM_THREAD_MEASUREMENTS = 0.2, 20, 8
# Before a budget is refused, speed is measured again, so often and so long: other programs only make it seem slower.
MAX_REMEASUREMENTS, MAX_REFUSAL_SECONDS = 2, 0.8
# Seconds per image of inference, as a share of those of training, where there is no time to measure both.
SCORING_PER_TRAINING = 1 / 3


@dataclass(frozen=True)
class Hardware:
    """The hardware to train on. Planning runs on the main rank of the group."""

    device: torch.device
    precision: str = "auto"
    group: ProcessGroup = SINGLE_PROCESS


@dataclass(frozen=True, eq=False)
class PlanRequest:
    """The training to plan; ``recipe`` and ``settings`` as of :func:`parse_recipe`, ``source`` names the data."""

    recipe: str
    settings: tuple[str, ...]
    train: ImageDataset
    scoring: ScoringLoad
    hardware: Hardware
    source: str

    @cached_property
    def spec(self) -> RecipeSpec:
        return parse_recipe(self.recipe, self.settings)


@dataclass(frozen=True)
class Selection:
    """A recipe, the precision to train it in, and lines that explain both to the user.

    Attributes:
        is_quick: whether there was no time to measure more than one network.
    """

    recipe: Recipe
    precision: str
    lines: tuple[str, ...]
    is_quick: bool = False


@dataclass(frozen=True)
class QuickEstimate:
    """A first measurement of the training speed, of a recipe that was asked for or of a narrow network.

    Attributes:
        benchmark: has measured ``probe``.
        spare_seconds: time left of the budget after ``MIN_STEPS`` steps of the smallest training; negative where there
            is no time for those.
        seconds: time that the measurement took.
    """

    benchmark: ThroughputBenchmark
    probe: Recipe
    spare_seconds: float
    seconds: float

    def has_time_for(self, num_measurements: int) -> bool:
        """Whether so many more measurements leave time for the training."""
        return self.spare_seconds > num_measurements * self.seconds


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
    budget, hardware = Budget(deadline, request.scoring, write_speed, deadline.elapsed()), request.hardware
    if hardware.device.type == "cpu" and (quick := _quick_estimate(request, budget)):
        return _plan_for_deadline(request, budget, _select_quickly(request, budget, quick), quick.benchmark)
    seconds = min(MAX_PLANNING_SECONDS, max(MIN_PLANNING_SECONDS, PLANNING_SHARE * budget.total_seconds))
    limit_seconds = seconds / NUM_LARGE_MEASUREMENTS
    benchmarks = {
        precision: build_throughput_benchmark(request.train, hardware.device, precision, limit_seconds, hardware.group)
        for precision in PRECISIONS
    }
    selection = _select_recipe(request, budget, benchmarks)
    return _plan_for_deadline(request, budget, selection, benchmarks[selection.precision])


def _select_recipe(request: PlanRequest, budget: Budget, benchmarks: dict[str, ThroughputBenchmark]) -> Selection:
    """Measure the throughput, and select recipe, precision and number of threads by it.

    ``auto`` measures a probe network in each precision, and a narrower one in the fastest. It selects a recipe by the
    speed interpolated between the two, measures the network of that recipe, and selects again by the corrected speed.
    """
    device, wanted, fixed = request.hardware.device, request.hardware.precision, request.spec.fixed
    narrow, wide = NARROW_PROBE[device.type], WIDE_PROBE[device.type]
    probe = fixed or wide
    precision, reason = resolve_precision(wanted, device, lambda name: benchmarks[name].remeasure(probe))
    lines, benchmark = describe_device(device, precision, reason), benchmarks[precision]
    if fixed:
        return Selection(fixed, precision, (*lines, *_tune_threads(benchmark, fixed)))
    estimate, profile = benchmark.seconds_by_work(narrow, probe), profile_dataset(request.train)

    def select(seconds_per_image: Callable[[Recipe], float]) -> tuple[Recipe, list[str]]:
        return _select_auto(request, budget, profile, seconds_per_image)

    first, _ = select(estimate)
    lines += _tune_threads(benchmark, first)
    # The estimate comes from other networks and more threads.
    correction = benchmark.training_seconds_per_image(first) / estimate(first)
    recipe, reasons = select(lambda recipe: correction * estimate(recipe))
    check_crop_padding(recipe, request.train)
    if wanted == "auto" and device.type == "cpu":
        precision, more_reasons = _confirm_precision(precision, recipe, benchmarks)
        reasons += more_reasons
    return Selection(recipe, precision, (*lines, *reasons))


def _select_auto(
    request: PlanRequest, budget: Budget, profile: DatasetProfile, seconds_per_image: Callable[[Recipe], float]
) -> tuple[Recipe, list[str]]:
    """The automatic recipe for the time left and a speed, and the lines that explain it."""
    training_seconds = budget.split().training_seconds

    def images_affordable(recipe: Recipe) -> float:
        return build_resizing(recipe).steps_in(training_seconds / seconds_per_image(recipe))

    return auto_recipe(profile, images_affordable, request.spec.overrides)


def _quick_estimate(request: PlanRequest, budget: Budget) -> QuickEstimate | None:
    """Measure one network, within a fraction of a second; None where the budget has time for a full selection."""
    wanted, fixed, started = request.hardware.precision, request.spec.fixed, budget.deadline.elapsed()
    precision = "fp32" if wanted == "auto" else wanted
    benchmark = build_throughput_benchmark(
        request.train, request.hardware.device, precision, FIRST_MEASUREMENT_SECONDS, request.hardware.group
    )
    probe = fixed or NARROW_PROBE["cpu"]
    smallest = _fit_batch(request, probe, 0.0)
    work = MIN_STEPS * smallest.batch_size * benchmark.flops_per_image(smallest)
    if budget.deadline.remaining() > LONG_BUDGET_SECONDS + work / SLOW_FLOPS:
        return None
    image_seconds = benchmark.training_seconds_per_image(probe)
    seconds = budget.deadline.elapsed() - started
    model = _model_cost(benchmark, smallest, SCORING_PER_TRAINING * image_seconds)
    spare_seconds = budget.split_for(model).training_seconds - MIN_STEPS * smallest.batch_size * image_seconds
    quick = QuickEstimate(benchmark, probe, spare_seconds, seconds)
    is_short = wanted == "auto" and budget.deadline.remaining() < SHORT_BUDGET_SECONDS
    return quick if is_short or not quick.has_time_for(NUM_MEASUREMENTS) else None


def _select_quickly(request: PlanRequest, budget: Budget, quick: QuickEstimate) -> Selection:
    """Select a recipe by the speed of one small network, where there is no time to measure more."""
    wanted, fixed, benchmark = request.hardware.precision, request.spec.fixed, quick.benchmark
    reason = "no time to measure more" if wanted == "auto" else "as asked"
    recipe, reasons = fixed, list[str]()
    if recipe is None:
        estimate, profile = benchmark.seconds_by_work(quick.probe, quick.probe), profile_dataset(request.train)
        recipe, reasons = _select_auto(request, budget, profile, estimate)
        check_crop_padding(recipe, request.train)
    lines = describe_device(request.hardware.device, benchmark.precision, reason)
    if quick.has_time_for(NUM_THREAD_MEASUREMENTS):
        lines += _tune_threads(benchmark, recipe)
    return Selection(recipe, benchmark.precision, (*lines, *reasons), is_quick=True)


def _tune_threads(benchmark: ThroughputBenchmark, recipe: Recipe) -> list[str]:
    """On a CPU, leave torch with the number of threads that is fastest; a line for the user if that is not all."""
    return tune_num_threads(lambda: benchmark.remeasure(recipe)) if benchmark.device.type == "cpu" else []


def _confirm_precision(
    precision: str, recipe: Recipe, benchmarks: dict[str, ThroughputBenchmark]
) -> tuple[str, list[str]]:
    """Return to fp32, with a line for the user, if the selected network is slower in the precision of the probe."""
    if precision == "fp32":
        return precision, []
    fp32, other = benchmarks["fp32"], benchmarks[precision]
    speedup = fp32.training_seconds_per_image(recipe) / other.training_seconds_per_image(recipe)
    for _ in range(MAX_REPEATS):
        if speedup >= MIN_RATIO_KEPT:
            break
        speedup = fp32.remeasure(recipe) / other.remeasure(recipe)
    if speedup >= MIN_RATIO_KEPT:
        return precision, []
    return "fp32", [f"fp32 after all: {precision} runs this network at {speedup:.2g}x its speed"]


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
    recipe = _fit_batch(request, recipe, inf)
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


def _fit_batch(request: PlanRequest, recipe: Recipe, images_affordable: float) -> Recipe:
    """The recipe with a batch size that fits the data, the budget and the number of processes."""
    is_fixed, num_images = request.spec.is_fixed("batch_size"), len(request.train)
    if not is_fixed:
        recipe = fit_batch_size(recipe, images_affordable, num_images)
    return fit_batch_to_processes(recipe, request.hardware.group.size, images_affordable, num_images, is_fixed)


def _model_cost(benchmark: ThroughputBenchmark, recipe: Recipe, scoring_image_seconds: float) -> ModelCost:
    recording_seconds = len(build_resizing(recipe).stages()) * benchmark.recording_seconds
    return ModelCost(benchmark.num_bytes(recipe), scoring_image_seconds, recording_seconds, recipe.tta)


def _plan_for_deadline(
    request: PlanRequest, budget: Budget, selection: Selection, benchmark: ThroughputBenchmark
) -> Plan:
    """The plan for a deadline: reserve time for scoring and saving, and train for the time that is left."""
    group, resizing = request.hardware.group, build_resizing(selection.recipe)
    image_seconds = benchmark.training_seconds_per_image(selection.recipe)
    scoring_image_seconds = SCORING_PER_TRAINING * image_seconds
    if not selection.is_quick:
        scoring_image_seconds = benchmark.scoring_seconds_per_image(selection.recipe)
    model = _model_cost(benchmark, selection.recipe, scoring_image_seconds)

    def fit(image_seconds: float) -> tuple[Recipe, float]:
        """The recipe with the batch size for a speed, and the seconds of a step."""
        num_images = resizing.steps_in(budget.split_for(model).training_seconds / image_seconds)
        fitted = _fit_batch(request, selection.recipe, num_images)
        return fitted, fitted.batch_size * image_seconds

    recipe, step_seconds = fit(image_seconds)
    for _ in range(MAX_REMEASUREMENTS):
        planning_seconds = budget.deadline.elapsed() - budget.planning_started
        if budget.has_time_for(model, step_seconds) or planning_seconds > MAX_REFUSAL_SECONDS:
            break
        image_seconds = benchmark.remeasure(selection.recipe)
        recipe, step_seconds = fit(image_seconds)
    budget.check_training_time(model, step_seconds, request.source)
    split = budget.split_for(model)
    micro_batch, micro_batch_lines = choose_micro_batch(recipe, group.size, image_seconds)
    plan = Plan(
        recipe=recipe,
        device=benchmark.device,
        threads=torch.get_num_threads(),
        precision=benchmark.precision,
        num_steps=None,
        micro_batch=micro_batch,
        step_seconds=step_seconds,
        expected_steps=int(resizing.steps_in(split.training_seconds / step_seconds)),
        scoring_seconds=split.scoring_seconds,
        saving_seconds=split.saving_seconds,
        finish_seconds=split.finish_seconds,
        num_val_images=budget.num_val_images(scoring_image_seconds),
        scoring_batch=inference_batch_size(benchmark.device, scoring_image_seconds),
        lines=(
            *selection.lines,
            *describe_batch_change(selection.recipe, recipe),
            *describe_processes(recipe, group, benchmark.seconds_per_rank),
            *micro_batch_lines,
        ),
    )
    speed = resizing.steps_in(1 / image_seconds)
    return replace(plan, lines=(*plan.lines, describe_split(plan, split, speed, len(request.train))))
