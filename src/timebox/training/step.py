"""One training step: forward, loss, backward and update, on a whole batch or on micro-batches."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timebox.data.device.loader import Batch, DeviceLoader
from timebox.models import networks_of
from timebox.optim.loss import Loss
from timebox.runtime.micro_batches import split_batch
from timebox.runtime.precision import Precision
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState


def training_step(state: TrainingState, loss_fn: Loss, batch: Batch, micro_batch: int) -> Tensor:
    """Forward, loss, backward, update. Average and step count stay as they are. See :func:`backpropagate`."""
    loss = backpropagate(networks_of(state.model), batch, state.precision, loss_fn, micro_batch)
    state.precision.step(state.optimizer)
    state.optimizer.zero_grad()
    return loss


def backpropagate(
    networks: Sequence[nn.Module],
    batch: Batch,
    precision: Precision,
    loss_fn: Loss,
    micro_batch: int,
    weight: float = 1.0,
) -> Tensor:
    """Compute the gradients of the loss, leave them in ``parameter.grad``, and return the mean loss of the networks.

    Each network of an ensemble has its own slice of the batch and its own loss. Gradients are accumulated over
    micro-batches of 2 images or more. Where a micro-batch holds whole groups of the ghost batch normalisation, the
    result is that of the whole batch, except for rounding. The loss is float32, 0-dim, detached, on the device.

    Args:
        weight: factor of the loss, above 0. Other than 1 where the batch is one rank's share.
    """
    total = torch.zeros((), device=batch.labels.device)
    num_images = len(batch.labels) // len(networks)
    slices = zip(networks, batch.images.split(num_images), batch.labels.split(num_images), strict=True)
    for network, images, labels in slices:
        num_remaining = num_images
        for micro in split_batch(Batch(images, labels), micro_batch):
            num_remaining -= len(micro.labels)
            with _no_sync(network) if num_remaining else nullcontext():
                with precision.autocast():
                    logits = network(micro.images)
                loss = loss_fn(logits, micro.labels) * (weight * len(micro.labels) / num_images)
                precision.backward(loss)
            total += loss.detach()
    return total / len(networks)


def _no_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Skip the all-reduce: gradients are exchanged once, after the last micro-batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


class StepRunner(Protocol):
    """Runs the steps of one training, one after the other."""

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Do the work that is needed once, before the first step and after each rollback. Changes no weights."""

    def run(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        """Run one step: update weights, average and step count. Returns the loss, 0-dim, detached, on the device."""


class EagerStepRunner:
    """Runs each step operation by operation."""

    def __init__(self, state: TrainingState, loss_fn: Loss) -> None:
        self._state, self._loss_fn = state, loss_fn

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """There is nothing to prepare."""

    def run(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        if step_plan.threads is not None and step_plan.threads != torch.get_num_threads():
            torch.set_num_threads(step_plan.threads)
        self._state.optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
        loss = training_step(self._state, self._loss_fn, batch, step_plan.micro_batch)
        self._state.advance(step_plan.progress)
        return loss
