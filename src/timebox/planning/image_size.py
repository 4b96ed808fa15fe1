"""The side to which images are shrunk on reading, before their number and the machine's throughput are known."""

from collections.abc import Callable

import torch

from timebox.data.reading.options import DEFAULT_MAX_SIDE
from timebox.machine import available_threads
from timebox.planning.auto import largest_useful_side

# Assumed training throughput in images/s of a network of width 64 at 32 pixels, on a thread of a server CPU of 2023 and
# on a data-centre GPU. Constants, so that a machine always reads the same data at the same size. They may be rough: a
# side that is too large costs little, because the network shrinks its input.
IMAGES_PER_SECOND_PER_THREAD, IMAGES_PER_SECOND_PER_GPU = 280.0, 100_000.0
# Assumed for a fixed number of steps, which must not depend on the machine.
REFERENCE_THREADS, REFERENCE_SECONDS = 2, 60.0


def largest_side_for(budget_seconds: float | None, device: torch.device) -> Callable[[int], int]:
    """A function from the number of images to the largest useful side in pixels; no budget for a fixed step count."""
    if budget_seconds is None:
        seconds, speed = REFERENCE_SECONDS, REFERENCE_THREADS * IMAGES_PER_SECOND_PER_THREAD
    elif device.type == "cuda":
        seconds, speed = budget_seconds, IMAGES_PER_SECOND_PER_GPU
    else:
        seconds, speed = budget_seconds, available_threads() * IMAGES_PER_SECOND_PER_THREAD
    return lambda num_images: max(DEFAULT_MAX_SIDE, largest_useful_side(num_images, seconds, speed))
