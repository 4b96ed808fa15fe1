"""Number of torch's CPU threads: limited to the processors of the container, and tuned to the work."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from timebox.machine import available_threads, local_world_size

# Fewer threads must be faster by this factor: measurements beside other work are noisy.
MIN_SPEEDUP = 1.15
# So often both numbers are measured again before the number is lowered.
NUM_CONFIRMATIONS = 2


@contextmanager
def limit_threads_to_container(root: Path = Path("/")) -> Iterator[None]:
    """Inside, torch uses no more threads than the container has processors; the number is restored afterwards.

    torch counts the cores of the machine and ignores a container's CPU quota. The number is only ever lowered: a host
    process may have set fewer, and torch itself counts the hyperthreads of a core once. A number that the user has set
    with OMP_NUM_THREADS stays. Processes that ``torchrun`` starts on one host share its threads evenly.
    """
    before = torch.get_num_threads()
    if threads_are_fixed():
        threads = before
    elif (processes := local_world_size()) > 1:
        threads = max(1, available_threads(root) // processes)
    else:
        threads = min(before, available_threads(root))
    with keep_num_threads():
        if threads != before:
            torch.set_num_threads(threads)
        yield


@contextmanager
def keep_num_threads() -> Iterator[None]:
    """Restores the number of torch's threads afterwards."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def cap_threads(threads: int) -> None:
    """Lower the number of torch's threads to ``threads``, if it is higher."""
    if threads < torch.get_num_threads():
        torch.set_num_threads(threads)


def tune_num_threads(seconds: float, measure_seconds: Callable[[], float]) -> list[str]:
    """Halve the number of torch's threads for as long as that makes the work, which takes ``seconds`` now, faster.

    Threads synchronise after every operation. With small operations, or with other programs on the same processors,
    they wait longer than they compute, and fewer threads are faster. A number that the user has set with
    OMP_NUM_THREADS stays.

    Returns:
        A line for the user where the number has been lowered, else nothing.
    """
    if threads_are_fixed():
        return []
    most = fewest = torch.get_num_threads()
    seconds_with_most = seconds
    while fewest > 1:
        torch.set_num_threads(fewest // 2)
        seconds_with_half = measure_seconds()
        if seconds < MIN_SPEEDUP * seconds_with_half:
            break
        fewest, seconds = fewest // 2, seconds_with_half
    # Other load during a measurement would lower the number for the whole plan: measure both again, in turn.
    for _ in range(NUM_CONFIRMATIONS if fewest < most else 0):
        torch.set_num_threads(most)
        seconds_with_most = min(seconds_with_most, measure_seconds())
        if seconds_with_most < MIN_SPEEDUP * seconds:
            fewest = most
            break
        torch.set_num_threads(fewest)
        seconds = min(seconds, measure_seconds())
    torch.set_num_threads(fewest)
    speedup = seconds_with_most / seconds
    return [f"{fewest} of {most} threads: {speedup:.1f}x as fast as all of them"] if fewest < most else []


def threads_are_fixed() -> bool:
    """Whether the user has set OMP_NUM_THREADS. ``torchrun`` sets it to 1 where it starts several processes."""
    setting = os.environ.get("OMP_NUM_THREADS")
    return bool(setting) and not (setting == "1" and local_world_size() > 1)
