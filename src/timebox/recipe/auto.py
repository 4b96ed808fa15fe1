"""The recipe chosen for a data set and a budget: one dial, the rest follows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from timebox.recipe.builtin import airbench94
from timebox.recipe.recipe import Recipe


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


@dataclass(frozen=True)
class Rung:
    """So many networks of one width."""

    width: int
    members: int = 1


# From the least work to the most. Below width 64 a wider network is what pays; above it a second one of the same width
# is worth more than a network twice as costly, and the fifth no longer is (LOG.md has the figures).
LADDER = (
    *(Rung(width) for width in (8, 12, 16, 24, 32, 48, 64)),
    *(Rung(64, members) for members in (2, 3, 4)),
    *(Rung(width, 4) for width in (96, 128, 192)),
    *(Rung(256, members) for members in (4, 6, 8)),
)

# Images are seen so often by a network of width 64 that fits 5,000 of them; more images need fewer epochs.
EPOCHS_OF_5000, EPOCHS_EXPONENT = 20.0, 0.45
FEWEST_EPOCHS, MOST_EPOCHS = 6.0, 80.0
# Steps that a schedule should have, and the batches it may take.
WANTED_STEPS = 400
SMALLEST_BATCH, LARGEST_BATCH = 32, 1024
# The first images have three quarters of the side, the last 40 % of the time is spent on whole ones.
START_SIZE, FULL_SIZE_AT = 0.75, 0.6
# Pixels: images must be so large that three quarters of them still are enough for three halvings.
SMALLEST_RESIZED_SIDE = 16


def auto_recipe(task: Task, images_affordable: Callable[[Recipe], float]) -> tuple[Recipe, list[str]]:
    """Networks, batch, image sizes and augmentation from the data, the budget and this hardware's measured speed.

    It trains the network of ``airbench94``, with Muon, on images that grow. The budget decides how far up a ladder of
    networks it climbs: the larger a network, the better it does with enough epochs, and the fewer of them a budget
    buys. From width 64 on several networks side by side are worth more than a wider one. The batch leaves the schedule
    steps to move in.

    Args:
        images_affordable: images that a recipe's networks can be trained on in the budget, repeats counted.
    Returns:
        The recipe, and the reasons for it, a line each.
    """
    wanted = wanted_epochs(task.num_images)
    ladder = [_on(rung, task) for rung in LADDER]
    climbed = list(takewhile(lambda recipe: images_affordable(recipe) >= wanted * task.num_images, ladder))
    recipe = climbed[-1] if climbed else ladder[0]
    num_images_seen = images_affordable(recipe)
    batch_size = batch_for(num_images_seen, task.num_images)
    recipe = recipe.replace(batch_size=batch_size, max_lr=round(recipe.max_lr * batch_size / recipe.batch_size, 4))
    networks = f"{recipe.members} networks" if recipe.members > 1 else "one network"
    mirroring = "keep their class, so they are used" if task.mirror_allowed else "lose their class, so none is shown"
    return recipe, [
        f"{networks} of width {recipe.width}: the most that sees each of {task.num_images} images {wanted:.0f} times "
        f"or more (about {num_images_seen / task.num_images:.1f})",
        f"batch {batch_size}: about {num_images_seen / batch_size:.0f} steps",
        f"crops shifted by up to {recipe.crop_padding} px; mirrored images {mirroring}",
    ]


def _on(rung: Rung, task: Task) -> Recipe:
    """The recipe with a rung's networks, all else but the batch as it will be."""
    return airbench94().replace(
        name="auto",
        width=rung.width,
        members=rung.members,
        min_steps=20,
        crop_padding=min(64, max(1, task.side // 16)),
        start_size=START_SIZE if task.side >= SMALLEST_RESIZED_SIDE else 1.0,
        full_size_at=FULL_SIZE_AT,
        flip="alternating" if task.mirror_allowed else "none",
        tta="mirror_shift" if task.mirror_allowed else "shift",
    )


def wanted_epochs(num_images: int) -> float:
    """How often each image must be seen before more or wider networks pay.

    5,000 images of CIFAR-10 are fitted after 20 epochs, as well as after 40; 500 of them after 60.
    """
    epochs = EPOCHS_OF_5000 * math.pow(5000 / num_images, EPOCHS_EXPONENT)
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, epochs))


def batch_for(num_images_seen: float, num_images: int) -> int:
    """The power of two that comes closest to :data:`WANTED_STEPS` steps, from 32 (8 for tiny sets) to 1024, at most a
    quarter of the data."""
    limit = max(8.0, num_images / 4)
    wanted = max(SMALLEST_BATCH, min(LARGEST_BATCH, num_images_seen / WANTED_STEPS))
    return int(2 ** min(round(math.log2(wanted)), math.floor(math.log2(limit))))
