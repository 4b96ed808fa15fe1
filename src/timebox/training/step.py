"""One training step: forward, loss, backward and update, on a whole batch or on micro-batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from timebox.data.device.loader import Batch, DeviceLoader
from timebox.models import networks_of
from timebox.models.kernels.chunked_conv import ChunkedConv2d
from timebox.optim.loss import Loss
from timebox.runtime.micro_batches import split_batch
from timebox.runtime.precision import Precision
from timebox.training.schedule import StepPlan
from timebox.training.state import TrainingState

# A step that begins with less time left than this can be aborted.
ABORTABLE_SECONDS = 30.0


class StepAbortedError(Exception):
    """Time ran out in a step. Weights, statistics, learning rate and progress are as they were before it."""


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
    for number, network in enumerate(networks):
        num_remaining = num_images
        for micro in split_batch(batch.slice(number * num_images, (number + 1) * num_images), micro_batch):
            num_remaining -= len(micro.labels)
            with _no_sync(network) if num_remaining else nullcontext():
                with precision.autocast():
                    logits = network(micro.images)
                if loss_fn.margins is not None and micro.indices is not None:
                    loss_fn.margins.add(logits, micro.labels, micro.indices)
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
        """Run one step: update weights, average and step count. Returns the loss, 0-dim, detached, on the device.

        Raises StepAbortedError where time runs out in it: no further step can be run.
        """


class EagerStepRunner:
    """Runs each step operation by operation.

    Args:
        seconds_left: reads the time until a step must have ended. On a CPU a step in which that time runs out is
            aborted, except for the first one: beside other programs it may take many times as long as the steps before.
    """

    def __init__(self, state: TrainingState, loss_fn: Loss, seconds_left: Callable[[], float] = lambda: inf) -> None:
        self._state, self._loss_fn, self._seconds_left = state, loss_fn, seconds_left

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """There is nothing to prepare."""

    def run(self, batch: Batch, step_plan: StepPlan) -> Tensor:
        if step_plan.threads is not None and step_plan.threads != torch.get_num_threads():
            torch.set_num_threads(step_plan.threads)
        is_abortable = self._state.step and not batch.images.is_cuda and self._seconds_left() < ABORTABLE_SECONDS
        with _abort_when_time_runs_out(self._state, self._seconds_left) if is_abortable else nullcontext():
            self._state.optimizer.prepare(step_plan.lr, step_plan.momentum, step_plan.progress)
            loss = training_step(self._state, self._loss_fn, batch, step_plan.micro_batch)
        self._state.advance(step_plan.progress)
        return loss


@contextmanager
def _abort_when_time_runs_out(state: TrainingState, seconds_left: Callable[[], float]) -> Iterator[None]:
    """Raise StepAbortedError before a layer's forward pass, or after its backward pass, once no time is left."""
    optimizer = state.optimizer
    lr, momentum, progress = optimizer.lr, optimizer.momentum, state.progress
    buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]

    def check(*_: object) -> None:
        if seconds_left() <= 0:
            raise StepAbortedError

    # Almost all time is spent in layers whose weights are matrices or convolution kernels.
    layers = [m for m in state.model.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    hooks = [layer.register_forward_pre_hook(check) for layer in layers]
    weights = [p for layer in layers for p in layer.parameters(recurse=False) if p.requires_grad]
    hooks += [weight.register_post_accumulate_grad_hook(check) for weight in weights]
    chunked = [layer for layer in layers if isinstance(layer, ChunkedConv2d)]
    for layer in chunked:
        layer.between_chunks = check
    try:
        yield
    except StepAbortedError:
        for buffer, before in buffers:
            buffer.copy_(before)
        optimizer.zero_grad()
        optimizer.prepare(lr, momentum, progress)
        raise
    finally:
        for hook in hooks:
            hook.remove()
        for layer in chunked:
            layer.between_chunks = None
