"""Torch's global state of the host process: threads, allocator settings and random numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from timebox.runtime.allocator import retain_freed_memory
from timebox.runtime.threads import limit_threads_to_container


@contextmanager
def preserve_torch_state() -> Iterator[None]:
    """Restores the number of threads, the allocator settings and the CPU random state afterwards."""
    with limit_threads_to_container(), retain_freed_memory(), torch.random.fork_rng(devices=[]):
        yield
