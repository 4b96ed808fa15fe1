"""Torch's global state of the host process: threads, random numbers, and memory that glibc's malloc keeps."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from timebox.runtime.threads import limit_threads_to_container

# Parameters of mallopt and their default values (malloc.h, mallopt(3)).
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_DEFAULTS = {_TRIM_THRESHOLD: 128 * 1024, _MMAP_MAX: 65_536}
_RETAIN = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
# Environment variables with which a user configures malloc.
_USER_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


@contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Inside, freed memory stays with the process for later allocations; afterwards it returns to the system.

    By default glibc returns each large tensor to the kernel when it is freed, and the kernel clears every page of the
    next one: 5 to 14 % of a training step on a CPU (see LOG.md). Does nothing with another C library, or where the
    environment configures malloc.
    """
    library = None if any(name in os.environ for name in _USER_SETTINGS) else _glibc()
    if library is None:
        yield
        return
    for option, value in _RETAIN.items():
        library.mallopt(option, value)
    try:
        yield
    finally:
        for option, value in _DEFAULTS.items():
            library.mallopt(option, value)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if os.name != "posix":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None


@contextmanager
def preserve_torch_state() -> Iterator[None]:
    """Restores the number of threads, the allocator settings and the CPU random state afterwards."""
    with limit_threads_to_container(), retain_freed_memory(), torch.random.fork_rng(devices=[]):
        yield
