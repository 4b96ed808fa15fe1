"""What a plan says of the machine and of those who train together."""

from collections.abc import Sequence

import torch

from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.models import kernels_work
from timebox.recipe import Recipe
from timebox.runtime.precision import dtype_of


def describe_device(device: torch.device, precision: str, why: str) -> list[str]:
    """What computes, in which precision and why; and whether it does so slower than it might."""
    if device.type == "cpu":
        return [f"CPU, {torch.get_num_threads()} threads, {precision} ({why})"]
    lines = [f"{torch.cuda.get_device_name(device)}, {precision} ({why})"]
    if not kernels_work(device, dtype_of(precision)):
        lines.append(
            "pooling, normalisation and activation are separate operations: their Triton kernels do not work here"
        )
    return lines


def describe_processes(recipe: Recipe, group: ProcessGroup, seconds_alone: Sequence[float]) -> list[str]:
    """How several processes share the work, and how fast each of them is by itself, where that is known."""
    if not isinstance(group, TorchrunGroup):
        return []
    lines = [f"{group.size} processes share each batch of {recipe.batch_size} images; learning rate {recipe.max_lr:g}"]
    if seconds_alone:
        speeds = [1 / seconds for seconds in seconds_alone]
        slowest = group.ranks[speeds.index(min(speeds))]
        lines.append(
            f"alone they train {', '.join(f'{speed:.0f}' for speed in speeds)} images/s; the slowest, {slowest}, sets "
            f"the pace"
        )
    return lines
