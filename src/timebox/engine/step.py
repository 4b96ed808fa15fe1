"""One training step, whole or in parts."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timebox.data.loader import Batch
from timebox.engine.loss import Loss
from timebox.engine.precision import Precision
from timebox.models import networks_of
from timebox.optim import Optimizer


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    precision: Precision,
    loss_of: Loss,
    micro_batch: int,
) -> Tensor:
    """One step: forward, loss, backward, update. Returns the loss, detached, on the device."""
    loss = backpropagate(networks_of(model), batch, precision, loss_of, micro_batch)
    precision.step(optimizer)
    optimizer.zero_grad()
    return loss


def backpropagate(
    networks: Sequence[nn.Module],
    batch: Batch,
    precision: Precision,
    loss_of: Loss,
    micro_batch: int,
    weight: float = 1.0,
) -> Tensor:
    """Forward, loss, backward: leaves the gradients at the parameters. Returns the loss, detached, on the device.

    Every member of an ensemble learns from its own part of the batch, by its own loss; the mean of these is returned.
    Gradients are computed on ``micro_batch`` images at a time and added up. Where these are whole groups of the ghost
    normalisation, the arithmetic is that of the whole batch, but for rounding.

    Args:
        networks: trained side by side; those of an ensemble, or one.
        weight: what the loss is multiplied by, above 0: other than 1 where the batch is one process's part.
    """
    total = torch.zeros((), device=batch.labels.device)
    share = len(batch.labels) // len(networks)
    own_parts = zip(networks, batch.images.split(share), batch.labels.split(share), strict=True)
    for network, images, labels in own_parts:
        unseen = share
        for part in parts_of(Batch(images, labels), micro_batch):
            unseen -= len(part.labels)
            with _gradients_kept(network) if unseen else nullcontext():
                with precision.autocast():
                    logits = network(part.images)
                loss = loss_of(logits, part.labels) * (weight * len(part.labels) / share)
                precision.backward(loss)
            total += loss.detach()
    return total / len(networks)


def _gradients_kept(network: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients stay with this process: all of them are sent after the last part."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def parts_of(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch cut into parts of ``size`` images; a last part of one image, which nothing can normalise, joins the
    part before it."""
    start, end = 0, len(batch.labels)
    while start < end:
        stop = end if end - start - size <= 1 else start + size
        yield Batch(batch.images[start:stop], batch.labels[start:stop])
        start = stop


def smaller_part(size: int, ghost_size: int) -> int | None:
    """About half of ``size``, in whole normalisation groups; None where ``size`` is a single group."""
    groups = ceil(size / ghost_size) if ghost_size else 1
    return ceil(groups / 2) * ghost_size if groups > 1 else None
