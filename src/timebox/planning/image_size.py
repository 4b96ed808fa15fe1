"""How large images are worth reading, before anything of them or of this machine's speed is known."""

from collections.abc import Callable

import torch

from timebox.data.reading.options import DEFAULT_MAX_SIDE
from timebox.machine import available_threads
from timebox.planning.auto import largest_useful_side

# Images a second at which a network of width 64 is trained on 32 pixels: what a thread of a server's CPU of 2023 and a
# data-centre GPU reach. Rough figures do: a side that is too large costs little, as the network takes a smaller one,
# and the same machine is to read the same data alike every time.
IMAGES_PER_SECOND_OF_A_THREAD, IMAGES_PER_SECOND_OF_A_GPU = 280.0, 100_000.0
# Where no clock may be read: two threads and a minute.
REFERENCE_THREADS, REFERENCE_SECONDS = 2, 60.0


def largest_side_for(budget_seconds: float | None, device: torch.device) -> Callable[[int], int]:
    """For a number of images, the side in pixels beyond which more of them would be of no use to ``auto``.

    Args:
        budget_seconds: of the whole training; None where steps are counted, which must not depend on the machine.
        device: that trains.
    """
    if budget_seconds is None:
        seconds, speed = REFERENCE_SECONDS, REFERENCE_THREADS * IMAGES_PER_SECOND_OF_A_THREAD
    elif device.type == "cuda":
        seconds, speed = budget_seconds, IMAGES_PER_SECOND_OF_A_GPU
    else:
        seconds, speed = budget_seconds, available_threads() * IMAGES_PER_SECOND_OF_A_THREAD
    return lambda num_images: max(DEFAULT_MAX_SIDE, largest_useful_side(num_images, seconds, speed))
