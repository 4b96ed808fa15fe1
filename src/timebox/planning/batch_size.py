"""Batch size and micro-batch size: limited by the data, the budget, the step time and the number of processes."""

from math import ceil

from timebox.errors import UsageError, option_text
from timebox.recipes import Recipe
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.training.schedule import MAX_MICRO_BATCH_SECONDS

# Images: batches are not halved below this, and grow until every process has as many.
MIN_BATCH_SIZE = 32
# Images of a process: batch normalisation needs two.
MIN_RANK_BATCH = 2


def fit_batch_size(recipe: Recipe, images_affordable: float, num_images: int) -> Recipe:
    """Halve batch size and learning rate until the batch fits the data and the budget allows ``min_steps`` steps.

    The learning rate stays where it is one of AdamW, or of an optimizer of the user's. ``images_affordable`` counts the
    training images that the budget allows, repeats included.
    """
    batch_size, lr = recipe.batch_size, recipe.max_lr
    while batch_size % 2 == 0 and batch_size // 2 >= MIN_BATCH_SIZE:
        if batch_size <= num_images and images_affordable / batch_size >= recipe.min_steps:
            break
        batch_size, lr = batch_size // 2, lr / _lr_ratio(recipe)
    return recipe if batch_size == recipe.batch_size else recipe.replace(batch_size=batch_size, max_lr=lr)


def fit_batch_to_processes(
    recipe: Recipe, num_processes: int, images_affordable: float, num_images: int, is_fixed: bool
) -> Recipe:
    """Double batch size and learning rate until each process has 32 images of a batch.

    The batch grows no further than the data fill it and the budget allows ``min_steps`` steps. The learning rate is
    proportional to the batch size, as in P. Goyal et al., arXiv 1706.02677. Raises UsageError if a process would have
    fewer than two images of a batch.
    """
    batch_size, lr = recipe.batch_size, recipe.max_lr
    while not is_fixed and batch_size < MIN_BATCH_SIZE * num_processes:
        if 2 * batch_size > num_images or images_affordable / (2 * batch_size) < recipe.min_steps:
            break
        batch_size, lr = 2 * batch_size, _lr_ratio(recipe) * lr
    if batch_size < MIN_RANK_BATCH * num_processes:
        raise UsageError(
            f"{num_processes} processes cannot share batches of {batch_size} images: each needs {MIN_RANK_BATCH}; "
            f"start fewer, or use {option_text('settings', f'batch_size={MIN_BATCH_SIZE * num_processes}')}"
        )
    return recipe if batch_size == recipe.batch_size else recipe.replace(batch_size=batch_size, max_lr=lr)


def _lr_ratio(recipe: Recipe) -> int:
    """Ratio of the learning rates for two batch sizes of which one is twice the other."""
    return 2 if recipe.optimizer in ("sgd", "muon") else 1


def choose_micro_batch(recipe: Recipe, num_processes: int, image_seconds: float) -> tuple[int, list[str]]:
    """Images that a network computes at once, so that no micro-batch takes more than a second, and a line for the user.

    Micro-batches of whole ghost batch norm groups give the same result. If a group alone takes longer, it is split too,
    down to 32 images, and the result changes. ``image_seconds`` is the time of all processes together.
    """
    rank_batch = ceil(recipe.batch_size / num_processes)
    size, image_seconds = rank_batch, num_processes * image_seconds / recipe.ensemble_size
    while size * image_seconds > MAX_MICRO_BATCH_SECONDS and (smaller := smaller_micro_batch(size, recipe.ghost_size)):
        size = smaller
    whole_groups = size
    while size * image_seconds > MAX_MICRO_BATCH_SECONDS and size // 2 >= MIN_BATCH_SIZE:
        size //= 2
    if size == rank_batch:
        return size, []
    change = "" if size == whole_groups else f", each normalised by itself: {whole_groups} images take over a second"
    return size, [f"batches of {recipe.batch_size} are computed in micro-batches of {size} images{change}"]
