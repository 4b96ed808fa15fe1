"""Timing of work on a device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from timebox.clock import now


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work; needed before a clock is read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def cudnn_benchmark() -> Iterator[None]:
    """Inside, cuDNN tries its algorithms on each new shape and keeps the fastest; the flag is restored afterwards.

    For speed runs, whose preparation is not timed: on an H100 the search takes four seconds for each network and image
    size, and makes steps 2 to 3 % shorter (LOG.md).
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
    """Shortest time of several calls of ``work`` in seconds, after one warm-up call.

    Repeats until ``limit_seconds`` are used up, the warm-up included, or ``max_repeats`` are done; at least once. The
    minimum is the measure, since other load on the machine can only add time.
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
