"""One training step, whole or in parts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timebox.data.device.loader import Batch, DeviceLoader
from timebox.models import networks_of
from timebox.optim import Optimizer
from timebox.optim.loss import Loss
from timebox.runtime.micro_batches import split_batch
from timebox.runtime.precision import Precision
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState


def training_step(
    model: nn.Module,
    optimizer: Optimizer,
    batch: Batch,
    precision: Precision,
    loss_fn: Loss,
    micro_batch: int,
) -> Tensor:
    """One step: forward, loss, backward, update. Returns the loss, detached, on the device."""
    loss = backpropagate(networks_of(model), batch, precision, loss_fn, micro_batch)
    precision.step(optimizer)
    optimizer.zero_grad()
    return loss


def backpropagate(
    networks: Sequence[nn.Module],
    batch: Batch,
    precision: Precision,
    loss_fn: Loss,
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
        for part in split_batch(Batch(images, labels), micro_batch):
            unseen -= len(part.labels)
            with _gradients_kept(network) if unseen else nullcontext():
                with precision.autocast():
                    logits = network(part.images)
                loss = loss_fn(logits, part.labels) * (weight * len(part.labels) / share)
                precision.backward(loss)
            total += loss.detach()
    return total / len(networks)


def _gradients_kept(network: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients stay with this process: all of them are sent after the last part."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


class Steps(Protocol):
    """Takes the steps of one training, one after the other."""

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Do beforehand what need not be done in each step. The training stays where it stands."""

    def __call__(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        """Take one step: weights, average and count move on. Returns the loss, 0-dim, detached, on the device."""


class EagerSteps:
    """Takes each step operation by operation."""

    def __init__(self, state: TrainingState, loss_fn: Loss) -> None:
        self._state, self._loss_fn = state, loss_fn

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        state = self._state
        state.optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        loss = training_step(state.model, state.optimizer, batch, state.precision, self._loss_fn, step_plan.micro_batch)
        state.advance(step_plan.progress)
        return loss
