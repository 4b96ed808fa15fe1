"""Recoverable faults of a training step: a loss that is not finite, and memory that runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RecoverableError(Exception):
    """A training step failed in a way from which a rollback may recover."""


class NonFiniteError(RecoverableError):
    """The loss or the weights became infinite or NaN at ``step``."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(f"{message} at step {step}")
        self.step = step


class OutOfMemoryError(RecoverableError):
    """A step needed more memory than there is."""


@contextmanager
def convert_memory_errors() -> Iterator[None]:
    """Raises OutOfMemoryError in place of the errors that Python, torch and its libraries raise without memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError, and so do the libraries it calls on a GPU.
        is_memory_error = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_memory_error and not any(text in str(error) for text in ("can't allocate memory", "ALLOC_FAILED")):
            raise
        raise OutOfMemoryError(str(error)) from error
