"""What computes in somebody else's process leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from timebox.runtime.allocator import retain_freed_memory
from timebox.runtime.threads import limit_threads_to_container


@contextmanager
def preserve_torch_state() -> Iterator[None]:
    """A guest leaves the host's threads, memory and random state as they were."""
    with limit_threads_to_container(), retain_freed_memory(), torch.random.fork_rng(devices=[]):
        yield
