"""As many threads as the container has processors and as the work gains by, for as long as it lasts."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from timebox.machine import available_threads, local_world_size

# Fewer threads must be so many times as fast: what is measured on a machine with other work is noisy.
MIN_SPEEDUP = 1.15


@contextmanager
def limit_threads_to_container(root: Path = Path("/")) -> Iterator[None]:
    """Inside, torch computes with no more threads than can run at once; afterwards with as many as before.

    torch counts the machine's cores and knows nothing of a container's CPU quota. Too many threads wait for those that
    are stopped. The number is only ever lowered: a host process may have asked for fewer, and torch itself counts
    hyperthreads of a core once. Where OMP_NUM_THREADS is set, the user has decided, and it stays as it is. Processes
    that ``torchrun`` starts on one host share its threads evenly.

    Args:
        root: as in :func:`timebox.machine.available_threads`.
    """
    before = torch.get_num_threads()
    if _set_by_user():
        threads = before
    elif (processes := local_world_size()) > 1:
        threads = max(1, available_threads(root) // processes)
    else:
        threads = min(before, available_threads(root))
    if threads != before:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def cap_threads(threads: int) -> None:
    """Have torch compute with no more threads than these."""
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)


def tune_num_threads(seconds_of_work: Callable[[], float]) -> list[str]:
    """Halve torch's threads for as long as the work becomes faster by it.

    Threads meet after every operation. Small ones, and threads that share a processor with other programs, wait longer
    than they compute: fewer are faster then, and leave the other programs in peace. Where OMP_NUM_THREADS is set, the
    user has decided.

    Args:
        seconds_of_work: measures it, anew in each call, with the threads there are.
    Returns:
        The reason, where there are fewer now.
    """
    if _set_by_user():
        return []
    most = fewest = torch.get_num_threads()
    seconds = at_most = seconds_of_work()
    while fewest > 1:
        torch.set_num_threads(fewest // 2)
        fewer = seconds_of_work()
        if seconds < MIN_SPEEDUP * fewer:
            break
        fewest, seconds = fewest // 2, fewer
    if fewest < most:
        # A busy moment while all of them were measured would cost the whole training its speed: once more.
        torch.set_num_threads(most)
        at_most = min(at_most, seconds_of_work())
        fewest = fewest if at_most >= MIN_SPEEDUP * seconds else most
    torch.set_num_threads(fewest)
    times = at_most / seconds
    return [f"{fewest} of {most} threads: {times:.1f}x as fast as all of them"] if fewest < most else []


def _set_by_user() -> bool:
    """Whether the user said how many. ``torchrun`` says 1 by itself, where it starts several processes."""
    asked = os.environ.get("OMP_NUM_THREADS")
    return bool(asked) and not (asked == "1" and local_world_size() > 1)
