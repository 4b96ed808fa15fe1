"""Micro-batches: slices of a batch for separate forward and backward passes."""

from collections.abc import Iterator
from math import ceil

from timebox.data.device.loader import Batch


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """Split a batch into micro-batches of ``size`` images. A single image left over joins the last micro-batch: batch
    normalisation needs two."""
    start, end = 0, len(batch.labels)
    while start < end:
        stop = end if end - start - size <= 1 else start + size
        yield batch.slice(start, stop)
        start = stop


def smaller_micro_batch(size: int, ghost_size: int) -> int | None:
    """About half of ``size``, in whole groups of the ghost batch normalisation; None where ``size`` is one group."""
    groups = ceil(size / ghost_size) if ghost_size else 1
    return ceil(groups / 2) * ghost_size if groups > 1 else None
