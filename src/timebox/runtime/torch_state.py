"""What computes in somebody else's process leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from timebox.runtime.allocator import kept_memory
from timebox.runtime.threads import container_threads


@contextmanager
def guest() -> Iterator[None]:
    """A guest leaves the host's threads, memory and random state as they were."""
    with container_threads(), kept_memory(), torch.random.fork_rng(devices=[]):
        yield
