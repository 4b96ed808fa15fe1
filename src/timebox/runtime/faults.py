"""Faults of a training step that can be mended: a loss that is not finite, and memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RecoverableError(Exception):
    """A step went wrong in a way that may be mended."""


class NonFiniteError(RecoverableError):
    """A loss, or the weights, became infinite or NaN."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} at step {step}")
        self.step = step


class OutOfMemoryError(RecoverableError):
    """A step needed more memory than there is."""


@contextmanager
def convert_memory_errors() -> Iterator[None]:
    """Turns what torch and Python raise when memory runs out into a fault."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError, and so do the libraries it calls on a GPU.
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(words in str(error) for words in ("can't allocate memory", "ALLOC_FAILED")):
            raise
        raise OutOfMemoryError(str(error)) from error
