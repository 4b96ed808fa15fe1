"""Planning: what is trained, in which precision, and how the budget is divided.

Everything a plan rests on is either known from the data or measured on this device within a few seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.builders import build_resizing
from timebox.clock import Deadline, format_duration
from timebox.data.dataset import ImageDataset
from timebox.data.flip_invariance import FlipInvariance, measure_flip_invariance
from timebox.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from timebox.errors import BudgetError, UsageError
from timebox.evaluation.inference import inference_batch_size
from timebox.evaluation.tta import NUM_VIEWS
from timebox.planning.auto import auto_recipe, largest_batch
from timebox.planning.batch_size import choose_micro_batch, fit_batch_size, fit_batch_to_processes
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.describe import describe_device, describe_processes
from timebox.planning.distributed_throughput import DistributedThroughputBenchmark, build_throughput_benchmark
from timebox.planning.plan import NUM_VALIDATIONS, Plan
from timebox.planning.throughput import NARROW_PROBE, WIDE_PROBE, ThroughputBenchmark
from timebox.recipe import Multiplier, Recipe, Setting, draft_of
from timebox.runtime.precision import MAX_REPEATS, MIN_RATIO_KEPT, PRECISIONS, resolve_precision
from timebox.runtime.threads import tune_num_threads
from timebox.runtime.write_speed import WRITES_AT_THE_END, WriteSpeed

# Where no clock may be read, auto plans for this machine and this budget: two CPU cores in fp32, one minute.
REFERENCE_FLOPS = 150e9
REFERENCE_SECONDS = 60.0
# A schedule is never made of fewer steps.
MIN_STEPS = 10
# Pixels: what is left of a smaller image after three halvings is nothing; a larger one is no input for this network.
MIN_SIDE, MAX_SIDE = 8, 4096
# Shares of the budget. Together with what validation takes on the way, scoring stays within a tenth.
FINAL_SCORING_SHARE = 0.07
VALIDATION_SHARE, MAX_VALIDATION_SHARE = 0.02, 0.03
# During training a sample is enough to see where it goes; with fewer than these images it would mislead.
MAX_VALIDATION_IMAGES = 2000
MIN_VALIDATION_IMAGES = 50
# Kept free at the end for leaving the interpreter and a machine that stutters, besides what saving takes.
EXIT_SECONDS = 0.8
STUTTER_SHARE = 0.01
# The report takes about half of this on two cores.
REPORT_SECONDS = 0.4
# Measuring may take this share of the budget, within these bounds in seconds. Six networks are measured, more where a
# lower precision seems not to pay or fewer threads do; about three of them are so large that they take all they may.
PLANNING_SHARE, MIN_PLANNING_SECONDS, MAX_PLANNING_SECONDS = 0.05, 0.6, 4.0
NUM_LARGE_MEASURED = 3
# With fewer seconds left, a CPU has time for the smallest network only, and none to look for a better one.
SHORT_BUDGET_SECONDS = 8.5


@dataclass(frozen=True)
class ScoringLoad:
    """How many images there are to score, and whether a report is written."""

    num_val: int
    num_test: int
    reported: bool = False

    def seconds(self, seconds_per_image: float, tta: str) -> float:
        """Time to set aside for all of them: what was measured on a few, and a margin, as training takes the rest."""
        num_images = (self.num_val + self.num_test) * NUM_VIEWS[tta]
        return 1.5 * num_images * seconds_per_image + 0.5 if num_images else 0.0


def make_plan(
    recipe_name: str,
    settings: Sequence[str],
    train: ImageDataset,
    scoring: ScoringLoad,
    device: torch.device,
    precision: str,
    deadline: Deadline,
    num_steps: int | None,
    writes: WriteSpeed,
    source: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Plan:
    """Resolve the recipe and divide the time. Where the clock decides, torch is left with the threads that pay.

    Args:
        recipe_name: ``auto``, a built-in name or a TOML file.
        settings: ``FIELD=VALUE`` texts that override the recipe.
        writes: what bringing files to the disk takes.
        source: what the data is called in messages.
        group: who trains together; this process leads them.
    Raises:
        UsageError: for a recipe that does not fit the data. BudgetError: for a budget too short to train in.
    """
    _check_size(train)
    draft = draft_of(recipe_name, settings)
    named, overrides = draft.fixed, draft.changes
    if named:
        _check_fit(named, train)
    if num_steps is not None:
        return _plan_steps(named, overrides, train, scoring, device, precision, num_steps, group)
    budget = deadline.budget_seconds or 0.0
    num_writes = WRITES_AT_THE_END + (1 if scoring.num_val + scoring.num_test else 0) + (2 if scoring.reported else 0)
    saving_seconds = writes.planned_seconds(num_writes)
    report_seconds = REPORT_SECONDS if scoring.reported else 0.0
    finish_seconds = saving_seconds + report_seconds + EXIT_SECONDS + STUTTER_SHARE * budget
    limit = min(MAX_PLANNING_SECONDS, max(MIN_PLANNING_SECONDS, PLANNING_SHARE * budget)) / NUM_LARGE_MEASURED
    benchmarks = {name: build_throughput_benchmark(train, device, name, limit, group) for name in PRECISIONS}
    scoring_share = FINAL_SCORING_SHARE if scoring.num_val + scoring.num_test else 0.0

    def train_seconds() -> float:
        return max((1 - scoring_share) * (deadline.remaining() - finish_seconds), 0.0)

    is_short = precision == "auto" and device.type == "cpu" and deadline.remaining() < SHORT_BUDGET_SECONDS
    recipe, chosen, lines = _choose(named, overrides, train, train_seconds, precision, benchmarks, is_short)
    return _divide_budget(
        recipe,
        _is_fixed("batch_size", overrides),
        len(train),
        scoring,
        benchmarks[chosen],
        deadline,
        writes,
        saving_seconds,
        finish_seconds,
        lines,
        source,
        group,
    )


def _choose(
    named: Recipe | None,
    overrides: Mapping[str, Setting],
    train: ImageDataset,
    train_seconds: Callable[[], float],
    precision: str,
    benchmarks: dict[str, ThroughputBenchmark],
    is_short: bool,
) -> tuple[Recipe, str, list[str]]:
    """The recipe, the precision, and the reasons for both, from what is measured now.

    Args:
        named: the recipe asked for; None where it is to be chosen.
        train_seconds: what training gets about, asked once all has been measured.
        hurried: whether there is no time to measure but the smallest network, in one precision.
    """
    device = benchmarks["fp32"].device
    narrow, wide = NARROW_PROBE[device.type], WIDE_PROBE[device.type]
    probe = named or (narrow if is_short else wide)
    if is_short:
        chosen, why = "fp32", "no time to measure more"
    else:
        chosen, why = resolve_precision(precision, device, lambda name: benchmarks[name].remeasure(probe))
    lines = describe_device(device, chosen, why)
    if named:
        return named, chosen, [*lines, *_tune_threads(benchmarks[chosen], named)]
    by_work, mirror = benchmarks[chosen].seconds_by_work(narrow, probe), measure_flip_invariance(train)
    first, _ = _auto(train, mirror, train_seconds(), by_work, overrides)
    lines += _tune_threads(benchmarks[chosen], first)
    # What was measured first, and on other networks, may be off: the one found is measured itself, and found again.
    correction = benchmarks[chosen].training_seconds_per_image(first) / by_work(first)
    recipe, reasons = _auto(train, mirror, train_seconds(), lambda recipe: correction * by_work(recipe), overrides)
    _check_fit(recipe, train)
    if precision == "auto" and device.type == "cpu":
        chosen, more = _confirm_precision(chosen, recipe, benchmarks)
        reasons += more
    return recipe, chosen, [*lines, *reasons]


def _tune_threads(benchmark: ThroughputBenchmark, recipe: Recipe) -> list[str]:
    """Leaves torch with them; why, where that changes anything."""
    return tune_num_threads(lambda: benchmark.remeasure(recipe)) if benchmark.device.type == "cpu" else []


def _confirm_precision(
    chosen: str, recipe: Recipe, benchmarks: dict[str, ThroughputBenchmark]
) -> tuple[str, list[str]]:
    """fp32, and the reason, where the network is slower in the precision that the probe was fastest in."""
    if chosen == "fp32":
        return chosen, []
    fp32, other = benchmarks["fp32"], benchmarks[chosen]
    ratio = fp32.training_seconds_per_image(recipe) / other.training_seconds_per_image(recipe)
    for _ in range(MAX_REPEATS):
        if ratio >= MIN_RATIO_KEPT:
            break
        ratio = fp32.remeasure(recipe) / other.remeasure(recipe)
    if ratio >= MIN_RATIO_KEPT:
        return chosen, []
    return "fp32", [f"fp32 after all: {chosen} runs this network at {ratio:.2g}x its speed"]


def _plan_steps(
    named: Recipe | None,
    overrides: Mapping[str, Setting],
    train: ImageDataset,
    scoring: ScoringLoad,
    device: torch.device,
    precision: str,
    num_steps: int,
    group: ProcessGroup,
) -> Plan:
    """The plan for a fixed number of steps, from the data alone."""
    chosen, why = resolve_precision(precision, device, None)
    benchmark = ThroughputBenchmark(train, device, chosen, 0.0)
    lines = describe_device(device, chosen, why)
    recipe = named
    if recipe is None:
        # However small the network, no more images are seen than steps of the largest batch hold.
        most_images = num_steps * largest_batch(len(train))

        def by_work(recipe: Recipe) -> float:
            return max(benchmark.flops_per_image(recipe) / REFERENCE_FLOPS, REFERENCE_SECONDS / most_images)

        recipe, reasons = _auto(train, measure_flip_invariance(train), REFERENCE_SECONDS, by_work, overrides)
        _check_fit(recipe, train)
        speed = f"{REFERENCE_FLOPS / 1e9:.0f} GFLOP/s"
        lines.append(
            f"planned as for {num_steps} steps, or {format_duration(REFERENCE_SECONDS)} at {speed} if that is less"
        )
        lines += reasons
    batch_fixed = _is_fixed("batch_size", overrides)
    if not batch_fixed:
        recipe = fit_batch_size(recipe, float("inf"), len(train))
    recipe = fit_batch_to_processes(recipe, group.size, float("inf"), len(train), batch_fixed)
    image_seconds = 0.0 if device.type == "cuda" else benchmark.flops_per_image(recipe) / REFERENCE_FLOPS
    micro_batch, part_lines = choose_micro_batch(recipe, group.size, image_seconds)
    return Plan(
        recipe=recipe,
        device=device,
        threads=torch.get_num_threads(),
        precision=chosen,
        num_steps=num_steps,
        micro_batch=micro_batch,
        step_seconds=0.0,
        expected_steps=num_steps,
        scoring_seconds=float("inf"),
        saving_seconds=0.0,
        finish_seconds=0.0,
        num_val_images=min(scoring.num_val, MAX_VALIDATION_IMAGES),
        scoring_batch=inference_batch_size(device, 0.0),
        lines=(*lines, *describe_processes(recipe, group, ()), *part_lines),
    )


def _divide_budget(
    drafted: Recipe,
    batch_fixed: bool,
    num_images: int,
    scoring: ScoringLoad,
    benchmark: ThroughputBenchmark,
    deadline: Deadline,
    writes: WriteSpeed,
    saving_seconds: float,
    finish_seconds: float,
    lines: list[str],
    source: str,
    group: ProcessGroup,
) -> Plan:
    """The plan for a deadline: measure the network, set time aside for scoring, and see what training gets."""
    recipe, budget = drafted, deadline.budget_seconds or 0.0
    large_seconds = writes.planned_seconds(0, benchmark.num_bytes(recipe))
    saving_seconds, finish_seconds = saving_seconds + large_seconds, finish_seconds + large_seconds
    image_seconds = benchmark.training_seconds_per_image(recipe)
    scoring_image_seconds = benchmark.scoring_seconds_per_image(recipe)
    scoring_seconds = min(FINAL_SCORING_SHARE * budget, scoring.seconds(scoring_image_seconds, recipe.tta))
    resizing = build_resizing(recipe)
    recording_seconds = len(resizing.stages()) * benchmark.recording_seconds
    train_seconds = deadline.remaining() - scoring_seconds - finish_seconds - recording_seconds
    if not batch_fixed:
        recipe = fit_batch_size(recipe, resizing.steps_in(train_seconds / image_seconds), num_images)
    recipe = fit_batch_to_processes(
        recipe, group.size, resizing.steps_in(train_seconds / image_seconds), num_images, batch_fixed
    )
    if recipe.batch_size < drafted.batch_size:
        lines.append(
            f"batch cut from {drafted.batch_size} to {recipe.batch_size} and rate from {drafted.max_lr:g} to "
            f"{recipe.max_lr:g}: data and budget would give too few steps"
        )
    micro_batch, part_lines = choose_micro_batch(recipe, group.size, image_seconds)
    lines += describe_processes(
        recipe, group, benchmark.alone if isinstance(benchmark, DistributedThroughputBenchmark) else ()
    )
    step_seconds = recipe.batch_size * image_seconds
    _check_budget(deadline, train_seconds, MIN_STEPS * step_seconds, source)
    affordable = VALIDATION_SHARE * budget / (NUM_VALIDATIONS - 1) / scoring_image_seconds
    num_val_images = min(scoring.num_val, int(affordable), MAX_VALIDATION_IMAGES)
    enough = num_val_images >= min(scoring.num_val, MIN_VALIDATION_IMAGES)
    plan = Plan(
        recipe=recipe,
        device=benchmark.device,
        threads=torch.get_num_threads(),
        precision=benchmark.precision,
        num_steps=None,
        micro_batch=micro_batch,
        step_seconds=step_seconds,
        expected_steps=int(resizing.steps_in(train_seconds / step_seconds)),
        scoring_seconds=scoring_seconds,
        saving_seconds=saving_seconds,
        finish_seconds=finish_seconds,
        num_val_images=num_val_images if enough else 0,
        scoring_batch=inference_batch_size(benchmark.device, scoring_image_seconds),
        lines=(),
    )
    epochs = plan.expected_steps * recipe.batch_size / num_images
    summary = (
        f"{format_duration(train_seconds)} of training at about {resizing.steps_in(1 / image_seconds):.0f} images/s: "
        f"{plan.expected_steps} steps, {epochs:.1f} epochs; {format_duration(scoring_seconds)} for scoring, "
        f"{format_duration(plan.reserve_seconds)} in reserve"
    )
    return replace(plan, lines=(*lines, *part_lines, summary))


def _auto(
    train: ImageDataset,
    mirror: FlipInvariance,
    train_seconds: float,
    seconds_per_image: Callable[[Recipe], float],
    overrides: Mapping[str, Setting],
) -> tuple[Recipe, list[str]]:
    """The automatic recipe and the reasons for it, from what a training image costs under a recipe."""
    task = DatasetProfile(
        num_images=len(train),
        side=min(train.image_shape[:2]),
        num_classes=train.num_classes,
        mirror_allowed=mirror.keeps_labels,
        imbalance=_imbalance(train.class_counts()),
    )

    def images_affordable(recipe: Recipe) -> float:
        return build_resizing(recipe).steps_in(train_seconds / seconds_per_image(recipe))

    recipe, reasons = auto_recipe(task, images_affordable, overrides)
    evidence = f"nearest neighbours right: {mirror.accuracy:.0%} as they are, {mirror.flipped_accuracy:.0%} mirrored"
    *others, mirroring, sureness = reasons
    return recipe, [*others, f"{mirroring} ({evidence})", sureness]


def _is_fixed(name: str, overrides: Mapping[str, Setting]) -> bool:
    """Whether a field has a value that must not change; a multiple of what is planned may."""
    return name in overrides and not isinstance(overrides[name], Multiplier)


def _imbalance(counts: NDArray[np.int64]) -> float:
    """How many times as many images the largest class has as the smallest that has any."""
    return float(counts.max() / counts[counts > 0].min())


def _check_size(train: ImageDataset) -> None:
    height, width, _ = train.image_shape
    if min(height, width) >= MIN_SIDE and max(height, width) <= MAX_SIDE:
        return
    problem, side = ("small", MIN_SIDE) if min(height, width) < MIN_SIDE else ("large", 64)
    raise UsageError(
        f"images of {width}x{height} pixels are too {problem}: both sides must be {MIN_SIDE} to {MAX_SIDE}; "
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
        f"{format_duration(deadline.elapsed())}, and {MIN_STEPS} steps take about {format_duration(needed_seconds)} "
        f"here; use at least {smallest}s"
    )
