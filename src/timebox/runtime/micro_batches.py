"""Cutting a batch into micro-batches."""

from collections.abc import Iterator
from math import ceil

from timebox.data.device.loader import Batch


def split_batch(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch cut into parts of ``size`` images; a last part of one image, which nothing can normalise, joins the
    part before it."""
    start, end = 0, len(batch.labels)
    while start < end:
        stop = end if end - start - size <= 1 else start + size
        yield Batch(batch.images[start:stop], batch.labels[start:stop])
        start = stop


def smaller_micro_batch(size: int, ghost_size: int) -> int | None:
    """About half of ``size``, in whole normalisation groups; None where ``size`` is a single group."""
    groups = ceil(size / ghost_size) if ghost_size else 1
    return ceil(groups / 2) * ghost_size if groups > 1 else None
