"""Lines of a plan that the user reads: device, processes, batch size and the split of the budget."""

from collections.abc import Sequence

import torch

from timebox.clock import format_duration
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.models import kernels_work
from timebox.planning.budget import BudgetSplit
from timebox.planning.plan import Plan
from timebox.recipes import Recipe
from timebox.runtime.device import device_name
from timebox.runtime.precision import dtype_of


def describe_device(device: torch.device, precision: str, reason: str) -> list[str]:
    """Device and precision with its reason; a second line if the Triton kernels do not work on a GPU."""
    if device.type == "cpu":
        return [f"CPU, {torch.get_num_threads()} threads, {precision} ({reason})"]
    lines = [f"{device_name(device)}, {precision} ({reason})"]
    if not kernels_work(device, dtype_of(precision)):
        lines.append(
            "pooling, normalisation and activation are separate operations: their Triton kernels do not work here"
        )
    return lines


def describe_processes(recipe: Recipe, group: ProcessGroup, seconds_per_rank: Sequence[float]) -> list[str]:
    """The number of processes and the throughput of each, if it was measured; no line for a single process."""
    if not isinstance(group, TorchrunGroup):
        return []
    lines = [f"{group.size} processes share each batch of {recipe.batch_size} images; learning rate {recipe.max_lr:g}"]
    if seconds_per_rank:
        speeds = [1 / seconds for seconds in seconds_per_rank]
        slowest = group.ranks[speeds.index(min(speeds))]
        lines.append(
            f"alone they train {', '.join(f'{speed:.0f}' for speed in speeds)} images/s; the slowest, {slowest}, sets "
            f"the pace"
        )
    return lines


def describe_batch_change(before: Recipe, after: Recipe) -> list[str]:
    """A line if the batch size was reduced to fit data and budget."""
    if after.batch_size >= before.batch_size:
        return []
    return [
        f"batch size reduced from {before.batch_size} to {after.batch_size} and learning rate from {before.max_lr:g} "
        f"to {after.max_lr:g}: data and budget would allow too few steps"
    ]


def describe_split(plan: Plan, split: BudgetSplit, images_per_second: float, num_images: int) -> str:
    """Time for training, scoring and reserve, and the steps and epochs of ``num_images`` images that it allows."""
    epochs = plan.expected_steps * plan.recipe.batch_size / num_images
    return (
        f"{format_duration(split.training_seconds)} of training at about {images_per_second:.0f} images/s: "
        f"{plan.expected_steps} steps, {epochs:.1f} epochs; {format_duration(split.scoring_seconds)} for scoring, "
        f"{format_duration(plan.reserve_seconds)} in reserve"
    )
