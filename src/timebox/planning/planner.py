"""Planning: what is trained, in which precision, and how the budget is divided.

Everything a plan rests on is either known from the data or measured on this device within a few seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from timebox.builders import resizing_of
from timebox.clock import Deadline, format_duration
from timebox.data.dataset import ImageDataset
from timebox.data.mirror_test import MirrorTest, mirror_test
from timebox.distributed.process_group import ALONE, Group
from timebox.errors import BudgetError, UsageError
from timebox.evaluation.inference import batch_size_for
from timebox.evaluation.tta import NUM_VIEWS
from timebox.planning.auto import auto_recipe, largest_batch
from timebox.planning.batch_size import parts_for, with_fitting_batch, with_full_shares
from timebox.planning.dataset_profile import DatasetProfile
from timebox.planning.describe import device_lines, processes_lines
from timebox.planning.distributed_throughput import SharedBench, bench_for
from timebox.planning.plan import NUM_VALIDATIONS, Plan
from timebox.planning.throughput import NARROW_PROBE, WIDE_PROBE, Bench
from timebox.recipe import Recipe, Setting, Times, draft_of
from timebox.runtime.precision import MOST_DOUBTS, NOT_SLOWER, PRECISIONS, resolve_precision
from timebox.runtime.threads import use_threads_that_pay
from timebox.runtime.write_speed import WRITES_AT_THE_END, WriteSpeed

# Where no clock may be read, auto plans for this machine and this budget: two CPU cores in fp32, one minute.
REFERENCE_FLOPS = 150e9
REFERENCE_SECONDS = 60.0
# A schedule is never made of fewer steps.
FEWEST_STEPS = 10
# Pixels: what is left of a smaller image after three halvings is nothing; a larger one is no input for this network.
SMALLEST_SIDE, LARGEST_SIDE = 8, 4096
# Shares of the budget. Together with what validation takes on the way, scoring stays within a tenth.
FINAL_SCORING_SHARE = 0.07
VALIDATION_SHARE, MOST_VALIDATION_SHARE = 0.02, 0.03
# During training a sample is enough to see where it goes; with fewer than these images it would mislead.
MOST_VALIDATION_IMAGES = 2000
FEWEST_VALIDATION_IMAGES = 50
# Kept free at the end for leaving the interpreter and a machine that stutters, besides what saving takes.
EXIT_SECONDS = 0.8
STUTTER_SHARE = 0.01
# The report takes about half of this on two cores.
REPORT_SECONDS = 0.4
# Measuring may take this share of the budget, within these bounds in seconds. Six networks are measured, more where a
# lower precision seems not to pay or fewer threads do; about three of them are so large that they take all they may.
PLANNING_SHARE, SHORTEST_PLANNING, LONGEST_PLANNING = 0.05, 0.6, 4.0
NUM_LARGE_MEASURED = 3
# With fewer seconds left, a CPU has time for the smallest network only, and none to look for a better one.
HURRY_SECONDS = 8.5


@dataclass(frozen=True)
class Scoring:
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
    scoring: Scoring,
    device: torch.device,
    precision: str,
    deadline: Deadline,
    num_steps: int | None,
    writes: WriteSpeed,
    source: str,
    group: Group = ALONE,
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
        return _counting_steps(named, overrides, train, scoring, device, precision, num_steps, group)
    budget = deadline.budget_seconds or 0.0
    num_writes = WRITES_AT_THE_END + (1 if scoring.num_val + scoring.num_test else 0) + (2 if scoring.reported else 0)
    saving_seconds = writes.planned_seconds(num_writes)
    report_seconds = REPORT_SECONDS if scoring.reported else 0.0
    finish_seconds = saving_seconds + report_seconds + EXIT_SECONDS + STUTTER_SHARE * budget
    limit = min(LONGEST_PLANNING, max(SHORTEST_PLANNING, PLANNING_SHARE * budget)) / NUM_LARGE_MEASURED
    benches = {name: bench_for(train, device, name, limit, group) for name in PRECISIONS}
    scoring_share = FINAL_SCORING_SHARE if scoring.num_val + scoring.num_test else 0.0

    def train_seconds() -> float:
        return max((1 - scoring_share) * (deadline.remaining() - finish_seconds), 0.0)

    hurried = precision == "auto" and device.type == "cpu" and deadline.remaining() < HURRY_SECONDS
    recipe, chosen, lines = _chosen(named, overrides, train, train_seconds, precision, benches, hurried)
    return _dividing_time(
        recipe,
        _is_fixed("batch_size", overrides),
        len(train),
        scoring,
        benches[chosen],
        deadline,
        writes,
        saving_seconds,
        finish_seconds,
        lines,
        source,
        group,
    )


def _chosen(
    named: Recipe | None,
    overrides: Mapping[str, Setting],
    train: ImageDataset,
    train_seconds: Callable[[], float],
    precision: str,
    benches: dict[str, Bench],
    hurried: bool,
) -> tuple[Recipe, str, list[str]]:
    """The recipe, the precision, and the reasons for both, from what is measured now.

    Args:
        named: the recipe asked for; None where it is to be chosen.
        train_seconds: what training gets about, asked once all has been measured.
        hurried: whether there is no time to measure but the smallest network, in one precision.
    """
    device = benches["fp32"].device
    narrow, wide = NARROW_PROBE[device.type], WIDE_PROBE[device.type]
    probe = named or (narrow if hurried else wide)
    if hurried:
        chosen, why = "fp32", "no time to measure more"
    else:
        chosen, why = resolve_precision(precision, device, lambda name: benches[name].measured_anew(probe))
    lines = device_lines(device, chosen, why)
    if named:
        return named, chosen, [*lines, *_threads_that_pay(benches[chosen], named)]
    by_work, mirror = benches[chosen].seconds_by_work(narrow, probe), mirror_test(train)
    first, _ = _auto(train, mirror, train_seconds(), by_work, overrides)
    lines += _threads_that_pay(benches[chosen], first)
    # What was measured first, and on other networks, may be off: the one found is measured itself, and found again.
    correction = benches[chosen].training_seconds_per_image(first) / by_work(first)
    recipe, reasons = _auto(train, mirror, train_seconds(), lambda recipe: correction * by_work(recipe), overrides)
    _check_fit(recipe, train)
    if precision == "auto" and device.type == "cpu":
        chosen, more = _precision_that_pays(chosen, recipe, benches)
        reasons += more
    return recipe, chosen, [*lines, *reasons]


def _threads_that_pay(bench: Bench, recipe: Recipe) -> list[str]:
    """Leaves torch with them; why, where that changes anything."""
    return use_threads_that_pay(lambda: bench.measured_anew(recipe)) if bench.device.type == "cpu" else []


def _precision_that_pays(chosen: str, recipe: Recipe, benches: dict[str, Bench]) -> tuple[str, list[str]]:
    """fp32, and the reason, where the network is slower in the precision that the probe was fastest in."""
    if chosen == "fp32":
        return chosen, []
    fp32, other = benches["fp32"], benches[chosen]
    ratio = fp32.training_seconds_per_image(recipe) / other.training_seconds_per_image(recipe)
    for _ in range(MOST_DOUBTS):
        if ratio >= NOT_SLOWER:
            break
        ratio = fp32.measured_anew(recipe) / other.measured_anew(recipe)
    if ratio >= NOT_SLOWER:
        return chosen, []
    return "fp32", [f"fp32 after all: {chosen} runs this network at {ratio:.2g}x its speed"]


def _counting_steps(
    named: Recipe | None,
    overrides: Mapping[str, Setting],
    train: ImageDataset,
    scoring: Scoring,
    device: torch.device,
    precision: str,
    num_steps: int,
    group: Group,
) -> Plan:
    """The plan for a fixed number of steps, from the data alone."""
    chosen, why = resolve_precision(precision, device, None)
    bench = Bench(train, device, chosen, 0.0)
    lines = device_lines(device, chosen, why)
    recipe = named
    if recipe is None:
        # However small the network, no more images are seen than steps of the largest batch hold.
        most_images = num_steps * largest_batch(len(train))

        def by_work(recipe: Recipe) -> float:
            return max(bench.flops_per_image(recipe) / REFERENCE_FLOPS, REFERENCE_SECONDS / most_images)

        recipe, reasons = _auto(train, mirror_test(train), REFERENCE_SECONDS, by_work, overrides)
        _check_fit(recipe, train)
        speed = f"{REFERENCE_FLOPS / 1e9:.0f} GFLOP/s"
        lines.append(
            f"planned as for {num_steps} steps, or {format_duration(REFERENCE_SECONDS)} at {speed} if that is less"
        )
        lines += reasons
    batch_fixed = _is_fixed("batch_size", overrides)
    if not batch_fixed:
        recipe = with_fitting_batch(recipe, float("inf"), len(train))
    recipe = with_full_shares(recipe, group.size, float("inf"), len(train), batch_fixed)
    image_seconds = 0.0 if device.type == "cuda" else bench.flops_per_image(recipe) / REFERENCE_FLOPS
    micro_batch, part_lines = parts_for(recipe, group.size, image_seconds)
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
        num_val_images=min(scoring.num_val, MOST_VALIDATION_IMAGES),
        scoring_batch=batch_size_for(device, 0.0),
        lines=(*lines, *processes_lines(recipe, group, ()), *part_lines),
    )


def _dividing_time(
    drafted: Recipe,
    batch_fixed: bool,
    num_images: int,
    scoring: Scoring,
    bench: Bench,
    deadline: Deadline,
    writes: WriteSpeed,
    saving_seconds: float,
    finish_seconds: float,
    lines: list[str],
    source: str,
    group: Group,
) -> Plan:
    """The plan for a deadline: measure the network, set time aside for scoring, and see what training gets."""
    recipe, budget = drafted, deadline.budget_seconds or 0.0
    large_seconds = writes.planned_seconds(0, bench.num_bytes(recipe))
    saving_seconds, finish_seconds = saving_seconds + large_seconds, finish_seconds + large_seconds
    image_seconds = bench.training_seconds_per_image(recipe)
    scoring_image_seconds = bench.scoring_seconds_per_image(recipe)
    scoring_seconds = min(FINAL_SCORING_SHARE * budget, scoring.seconds(scoring_image_seconds, recipe.tta))
    resizing = resizing_of(recipe)
    recording_seconds = len(resizing.stages()) * bench.recording_seconds
    train_seconds = deadline.remaining() - scoring_seconds - finish_seconds - recording_seconds
    if not batch_fixed:
        recipe = with_fitting_batch(recipe, resizing.steps_in(train_seconds / image_seconds), num_images)
    recipe = with_full_shares(
        recipe, group.size, resizing.steps_in(train_seconds / image_seconds), num_images, batch_fixed
    )
    if recipe.batch_size < drafted.batch_size:
        lines.append(
            f"batch cut from {drafted.batch_size} to {recipe.batch_size} and rate from {drafted.max_lr:g} to "
            f"{recipe.max_lr:g}: data and budget would give too few steps"
        )
    micro_batch, part_lines = parts_for(recipe, group.size, image_seconds)
    lines += processes_lines(recipe, group, bench.alone if isinstance(bench, SharedBench) else ())
    step_seconds = recipe.batch_size * image_seconds
    _check_budget(deadline, train_seconds, FEWEST_STEPS * step_seconds, source)
    affordable = VALIDATION_SHARE * budget / (NUM_VALIDATIONS - 1) / scoring_image_seconds
    num_val_images = min(scoring.num_val, int(affordable), MOST_VALIDATION_IMAGES)
    enough = num_val_images >= min(scoring.num_val, FEWEST_VALIDATION_IMAGES)
    plan = Plan(
        recipe=recipe,
        device=bench.device,
        threads=torch.get_num_threads(),
        precision=bench.precision,
        num_steps=None,
        micro_batch=micro_batch,
        step_seconds=step_seconds,
        expected_steps=int(resizing.steps_in(train_seconds / step_seconds)),
        scoring_seconds=scoring_seconds,
        saving_seconds=saving_seconds,
        finish_seconds=finish_seconds,
        num_val_images=num_val_images if enough else 0,
        scoring_batch=batch_size_for(bench.device, scoring_image_seconds),
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
    mirror: MirrorTest,
    train_seconds: float,
    seconds_per_image: Callable[[Recipe], float],
    overrides: Mapping[str, Setting],
) -> tuple[Recipe, list[str]]:
    """The automatic recipe and the reasons for it, from what a training image costs under a recipe."""
    task = DatasetProfile(
        num_images=len(train),
        side=min(train.image_shape[:2]),
        num_classes=train.num_classes,
        mirror_allowed=mirror.allowed,
        imbalance=_imbalance(train.class_counts()),
    )

    def images_affordable(recipe: Recipe) -> float:
        return resizing_of(recipe).steps_in(train_seconds / seconds_per_image(recipe))

    recipe, reasons = auto_recipe(task, images_affordable, overrides)
    evidence = f"nearest neighbours right: {mirror.accuracy:.0%} as they are, {mirror.mirrored_accuracy:.0%} mirrored"
    *others, mirroring, sureness = reasons
    return recipe, [*others, f"{mirroring} ({evidence})", sureness]


def _is_fixed(name: str, overrides: Mapping[str, Setting]) -> bool:
    """Whether a field has a value that must not change; a multiple of what is planned may."""
    return name in overrides and not isinstance(overrides[name], Times)


def _imbalance(counts: NDArray[np.int64]) -> float:
    """How many times as many images the largest class has as the smallest that has any."""
    return float(counts.max() / counts[counts > 0].min())


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
