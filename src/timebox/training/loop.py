"""The training loop."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from timebox.data.device.loader import DeviceLoader
from timebox.runtime.faults import NonFiniteError, RecoverableError, convert_memory_errors
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.monitor import TrainingMonitor
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import Schedule
from timebox.training.state import TrainingState
from timebox.training.step import Steps


@dataclass(frozen=True)
class TrainingResult:
    """The outcome: the averaged model, and how it came about."""

    model: nn.Module
    num_steps: int
    epochs: float
    images_per_second: float
    final_lr: float


@dataclass(eq=False)
class PeriodicValidation:
    """Measures the averaged model's accuracy on the way, as long as that costs no more than it may.

    Args:
        measure: gives the accuracy of a model.
        moments: progress after which to measure, rising in 0...1.
        allowed_seconds: for all of them together; one that would exceed it is left out.
        agreed: what the leader of a group says to a yes or no.
    """

    measure: Callable[[nn.Module], float]
    moments: list[float]
    allowed_seconds: float
    agreed: Callable[[bool], bool] = bool
    spent_seconds: float = 0.0
    last_seconds: float = 0.0

    def run_if_due(self, state: TrainingState, monitor: TrainingMonitor) -> None:
        """Measure, if one of the moments has been passed."""
        if not self.moments or state.progress < self.moments[0]:
            return
        self.moments = [moment for moment in self.moments if moment > state.progress]
        if self.agreed(self.spent_seconds + self.last_seconds <= self.allowed_seconds):
            self.last_seconds = monitor.run_validation(
                state.step, state.progress, lambda: self.measure(state.average.model)
            )
            self.spent_seconds += self.last_seconds


def train_model(
    state: TrainingState,
    loader: DeviceLoader,
    schedule: Schedule,
    steps: Steps,
    guard: RollbackGuard,
    checkpointer: AsyncCheckpointer,
    monitor: TrainingMonitor,
    validation: PeriodicValidation | None,
) -> TrainingResult:
    """Train from where ``state`` stands until the schedule is at its end, whatever goes wrong on the way.

    Raises:
        TimeboxError: when numbers stay wrong or memory short however often the training goes back.
    """
    while True:
        try:
            with convert_memory_errors():
                steps.prepare(loader, schedule.micro_batch)
                schedule.paused()
                _take_steps(state, loader, schedule, steps, guard, checkpointer, monitor, validation)
        except RecoverableError as fault:
            guard.recover(fault)
            monitor.rolled_back(state.step)
        else:
            epochs = state.step * loader.batch_size / len(loader)
            return TrainingResult(
                state.average.model, state.step, epochs, monitor.images_per_second, state.optimizer.lr
            )


def _take_steps(
    state: TrainingState,
    loader: DeviceLoader,
    schedule: Schedule,
    steps: Steps,
    guard: RollbackGuard,
    checkpointer: AsyncCheckpointer,
    monitor: TrainingMonitor,
    validation: PeriodicValidation | None,
) -> None:
    """The loop. Raises FaultError where a step went wrong."""
    while (step_plan := schedule.next(monitor.num_pending)) is not None:
        batch = loader.batch(state.step, state.progress)
        loss = steps(batch, step_plan)
        monitor.step_issued(state.step, max(batch.images.shape[2:]), step_plan, loss)
        # Before the state is kept: a training that goes on from there does not validate here again.
        if validation:
            validation.run_if_due(state, monitor)
        guard.save_if_due()
        if checkpointer.is_due():
            # In step with others, none may learn of a fault before they do; what is kept is looked at in any case.
            monitor.collect(drain=not monitor.in_lockstep)
            checkpointer.save(state.snapshot())
    monitor.collect(drain=True)
    # What the last update did shows in no loss.
    if not state.is_finite():
        raise NonFiniteError("the weights are not finite numbers", state.step)
