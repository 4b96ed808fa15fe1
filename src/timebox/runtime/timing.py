"""How fast this device is, measured on the work itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from timebox.clock import now


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work, as one must before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Inside, cuDNN tries its algorithms on each new shape and keeps the fastest; afterwards the flag is as before.

    For speed runs, whose preparations are free. On an H100 that takes four seconds for each network and image size, and
    steps are 2 to 3 % shorter (LOG.md): a training of minutes has nothing to gain by it.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def fastest_seconds(
    work: Callable[[], object], device: torch.device, limit_seconds: float, max_repeats: int = 8
) -> float:
    """Seconds the work takes at its fastest, after one warm-up.

    Repeats until ``limit_seconds`` are used up, the warm-up included, or ``max_repeats`` are done; at least once. The
    minimum is taken, since whatever else the machine does can only add time.
    """
    started = now()
    work()
    synchronize(device)
    best = float("inf")
    for repeat in range(max_repeats):
        if repeat and now() - started > limit_seconds:
            break
        before = now()
        work()
        synchronize(device)
        best = min(best, now() - before)
    return max(best, 1e-6)
