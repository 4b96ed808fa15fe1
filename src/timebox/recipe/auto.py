"""The recipe chosen for a data set and a budget: one dial, the rest follows."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from timebox.recipe.builtin import haet2021
from timebox.recipe.recipe import Recipe

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Task:
    """What ``auto`` knows of the data.

    Attributes:
        num_images: images trained on.
        side: the shorter side of the working size in pixels.
        num_classes: 2 or more.
        mirror_allowed: whether mirrored images keep their label, see :mod:`timebox.data.mirror`.
    """

    num_images: int
    side: int
    num_classes: int
    mirror_allowed: bool


def auto_recipe(task: Task, images_affordable: Callable[[int], float]) -> tuple[Recipe, list[str]]:
    """Network width, batch and augmentation from the data, the budget and this hardware's measured speed.

    The wider the network, the better it does with enough epochs, and the fewer of them a budget buys. ``auto`` takes
    the widest ResNet-9 that still sees every image often enough, and sets the batch so that the schedule has steps to
    move in. The more often an image is seen, the stronger it is altered.

    Args:
        images_affordable: images a network of the given width can be trained on in the budget, repeats counted.
    Returns:
        The recipe, and the reasons for it, a line each.
    """
    wanted = wanted_epochs(task.num_images)
    width, num_images_seen = WIDTHS[0], images_affordable(WIDTHS[0])
    for wider in WIDTHS[1:]:
        affordable = images_affordable(wider)
        if affordable / task.num_images < wanted:
            break
        width, num_images_seen = wider, affordable
    epochs = num_images_seen / task.num_images
    batch_size = batch_for(num_images_seen, task.num_images)
    recipe = haet2021().replace(
        name="auto",
        width=width,
        batch_size=batch_size,
        max_lr=round(batch_size / 512, 4),
        min_steps=20,
        crop_padding=min(64, max(1, task.side // 8)),
        flip="alternating" if task.mirror_allowed else "none",
        cutout_size=min(1024, task.side // 4) if epochs > 15 else 0,
        tta="mirror" if task.mirror_allowed else "none",
        label_smoothing=0.1,
        averaging_span=0.1,
    )
    mirroring = "mirrored images keep their class" if task.mirror_allowed else "mirrored images lose their class"
    return recipe, [
        f"width {width}: the widest that sees each of {task.num_images} images {wanted:.0f} times or more "
        f"(about {epochs:.1f})",
        f"batch {batch_size}: about {num_images_seen / batch_size:.0f} steps; highest rate {recipe.max_lr:g}",
        f"crops shifted by up to {recipe.crop_padding} px, cutout {recipe.cutout_size} px; {mirroring}: "
        f"flip {recipe.flip}, scoring {'on both' if task.mirror_allowed else 'as they are'}",
    ]


def wanted_epochs(num_images: int) -> float:
    """Epochs a network needs before a wider one pays: fewer for larger data sets, whose epochs hold more steps.

    On CIFAR-10 cut to 5,000, width 32 for 20 epochs reaches 83.6 %, width 48 for the same time, 9 epochs, 80.1 %.
    """
    return min(40.0, max(6.0, 20.0 * math.pow(5000 / num_images, 0.4)))


def batch_for(num_images_seen: float, num_images: int) -> int:
    """A power of two that leaves the schedule about 1,000 steps, from 32 (8 for tiny sets) to 512, at most a quarter of
    the data.

    Many small steps beat few large ones: 30,000 images in batches of 256, 128, 64 and 32 end at 68.7, 72.1, 73.7 and
    74.2 % (CIFAR-10 cut to 5,000, width 32, rate in proportion).
    """
    limit = min(512.0, max(8.0, num_images / 4), max(32.0, num_images_seen / 1000))
    batch = 8
    while batch * 2 <= limit:
        batch *= 2
    return batch
