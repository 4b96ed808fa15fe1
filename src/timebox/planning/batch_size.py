"""How large a batch is, and how much of it is computed at once: what data, budget, memory and processes allow."""

from math import ceil

from timebox.errors import UsageError
from timebox.recipe import Recipe
from timebox.runtime.micro_batches import smaller_micro_batch
from timebox.training.schedule import MAX_MICRO_BATCH_SECONDS

# The batch is never halved below this, and a process's share of it not smaller where it may be grown.
MIN_BATCH_SIZE = 32
# Normalisation finds no spread in a single image.
MIN_SHARE = 2


def fit_batch_size(recipe: Recipe, images_affordable: float, num_images: int) -> Recipe:
    """The recipe, its batch halved, and its rate with it, until the data fill it and the budget buys ``min_steps``."""
    batch, lr = recipe.batch_size, recipe.max_lr
    while batch % 2 == 0 and batch // 2 >= MIN_BATCH_SIZE:
        if batch <= num_images and images_affordable / batch >= recipe.min_steps:
            break
        batch, lr = batch // 2, lr / 2
    return recipe if batch == recipe.batch_size else recipe.replace(batch_size=batch, max_lr=lr)


def fit_batch_to_processes(
    recipe: Recipe, num_processes: int, images_affordable: float, num_images: int, batch_fixed: bool
) -> Recipe:
    """The recipe for several processes, among which each batch is divided: the batch doubled, and its rate with it,
    until each has 32 images of it, as long as data and budget fill ``min_steps`` of them.

    The rate follows the batch as in P. Goyal et al., arXiv 1706.02677.

    Args:
        batch_fixed: whether the batch is to stay as it is.
    Raises:
        UsageError: where not even two images are left for each.
    """
    batch, lr = recipe.batch_size, recipe.max_lr
    while not batch_fixed and batch < MIN_BATCH_SIZE * num_processes:
        if 2 * batch > num_images or images_affordable / (2 * batch) < recipe.min_steps:
            break
        batch, lr = 2 * batch, 2 * lr
    if batch < MIN_SHARE * num_processes:
        raise UsageError(
            f"{num_processes} processes cannot share batches of {batch} images: each needs {MIN_SHARE}; start "
            f"fewer, or use --set batch_size={MIN_BATCH_SIZE * num_processes}"
        )
    return recipe if batch == recipe.batch_size else recipe.replace(batch_size=batch, max_lr=lr)


def choose_micro_batch(recipe: Recipe, num_processes: int, image_seconds: float) -> tuple[int, list[str]]:
    """How many images a network computes at once, so that no part of a step lasts beyond a second; what that changes.

    Whole normalisation groups change nothing. Where a batch is a single group it is cut all the same, down to 32.

    Args:
        num_processes: that share a batch.
        image_seconds: of a training image, all of them together.
    """
    share = ceil(recipe.batch_size / num_processes)
    size, image_seconds = share, num_processes * image_seconds / recipe.ensemble_size
    while size * image_seconds > MAX_MICRO_BATCH_SECONDS and (smaller := smaller_micro_batch(size, recipe.ghost_size)):
        size = smaller
    alike = size
    while size * image_seconds > MAX_MICRO_BATCH_SECONDS and size // 2 >= MIN_BATCH_SIZE:
        size //= 2
    if size == share:
        return size, []
    how = "" if size == alike else f", each normalised by itself, as {alike} images would take more than a second"
    return size, [f"batches of {recipe.batch_size} are computed in parts of {size} images{how}"]
