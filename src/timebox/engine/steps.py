"""Who takes the steps of a training."""

from typing import Protocol

from torch import Tensor

from timebox.data.loader import Batch, DeviceLoader
from timebox.engine.loss import Loss
from timebox.engine.schedule import Decision
from timebox.engine.state import TrainingState
from timebox.engine.step import training_step


class Steps(Protocol):
    """Takes the steps of one training, one after the other."""

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Do beforehand what need not be done in each step. The training stays where it stands."""

    def __call__(self, batch: Batch, decision: Decision) -> Tensor:
        """Take one step: weights, average and count move on. Returns the loss, 0-dim, detached, on the device."""


class EagerSteps:
    """Takes each step operation by operation."""

    def __init__(self, state: TrainingState, loss_of: Loss) -> None:
        self._state, self._loss_of = state, loss_of

    def prepare(self, loader: DeviceLoader, micro_batch: int) -> None:
        """Nothing to prepare."""

    def __call__(self, batch: Batch, decision: Decision) -> Tensor:
        state = self._state
        state.optimizer.prepare(decision.lr, decision.momentum, decision.progress)
        loss = training_step(state.model, state.optimizer, batch, state.precision, self._loss_of, decision.micro_batch)
        state.advance(decision.progress)
        return loss
