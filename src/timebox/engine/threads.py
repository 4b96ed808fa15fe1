"""As many threads as the container has processors, for as long as the work lasts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from timebox.machine import available_threads


@contextmanager
def container_threads(root: Path = Path("/")) -> Iterator[None]:
    """Inside, torch computes with no more threads than can run at once; afterwards with as many as before.

    torch counts the machine's cores and knows nothing of a container's CPU quota. Too many threads wait for those that
    are stopped. The number is only ever lowered: a host process may have asked for fewer, and torch itself counts
    hyperthreads of a core once. Where OMP_NUM_THREADS is set, the user has decided, and it stays as it is.

    Args:
        root: as in :func:`timebox.machine.available_threads`.
    """
    before = torch.get_num_threads()
    threads = before if os.environ.get("OMP_NUM_THREADS") else min(before, available_threads(root))
    if threads == before:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
