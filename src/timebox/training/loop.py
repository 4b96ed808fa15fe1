"""The training loop."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from timebox.data.device.loader import DeviceLoader
from timebox.runtime.faults import NonFiniteError, RecoverableError, convert_memory_errors
from timebox.training.checkpointer import AsyncCheckpointer
from timebox.training.monitor import TrainingMonitor
from timebox.training.rollback import RollbackGuard
from timebox.training.schedule import Schedule
from timebox.training.state import TrainingState
from timebox.training.step import StepAbortedError, StepRunner


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: the averaged model, passes over the training images, and speed without validation.

    ``is_aborted`` where time ran out in a step before the end of the schedule.
    """

    model: nn.Module
    num_steps: int
    epochs: float
    images_per_second: float
    final_lr: float
    is_aborted: bool = False


@dataclass(eq=False)
class PeriodicValidation:
    """Measures the accuracy of the averaged model whenever the progress passes one of ``validate_at``, ascending.

    A measurement that would exceed ``limit_seconds`` for all together is left out. ``broadcast`` returns the main
    rank's value on all ranks.
    """

    measure: Callable[[nn.Module], float]
    validate_at: list[float]
    limit_seconds: float
    broadcast: Callable[[bool], float] = bool
    total_seconds: float = 0.0
    last_seconds: float = 0.0

    def run_if_due(self, state: TrainingState, monitor: TrainingMonitor) -> None:
        """Measure if the training has passed one or more of ``validate_at`` since the last call."""
        if not self.validate_at or state.progress < self.validate_at[0]:
            return
        self.validate_at = [progress for progress in self.validate_at if progress > state.progress]
        if self.broadcast(self.total_seconds + self.last_seconds <= self.limit_seconds):
            measure = partial(self.measure, state.average.model)
            self.last_seconds = monitor.run_validation(state.step, state.progress, measure)
            self.total_seconds += self.last_seconds


@dataclass(frozen=True, eq=False)
class TrainingComponents:
    """The objects that train one model together, all for the same ``state``; worker ranks write no checkpoints."""

    state: TrainingState
    loader: DeviceLoader
    schedule: Schedule
    step_runner: StepRunner
    guard: RollbackGuard
    monitor: TrainingMonitor
    checkpointer: AsyncCheckpointer | None = None
    validation: PeriodicValidation | None = None


def train_model(components: TrainingComponents) -> TrainingResult:
    """Train to the end of the schedule, or of the time where a step takes far longer than planned.

    After a recoverable fault, roll back and go on, see :class:`RollbackGuard`.
    """
    state, loader, monitor, schedule = components.state, components.loader, components.monitor, components.schedule
    while True:
        try:
            with convert_memory_errors():
                components.step_runner.prepare(loader, schedule.micro_batch)
                schedule.pacer.restart_timer()
                is_aborted = _run_steps(components)
        except RecoverableError as fault:
            components.guard.recover(fault)
            monitor.record_rollback(state.step)
        else:
            epochs, final_lr = state.step * loader.batch_size / len(loader), state.optimizer.lr
            images_per_second = monitor.images_per_second
            return TrainingResult(state.average.model, state.step, epochs, images_per_second, final_lr, is_aborted)


def _run_steps(components: TrainingComponents) -> bool:
    """The loop. Returns whether the last step was aborted; raises RecoverableError where a step fails."""
    state, monitor, checkpointer = components.state, components.monitor, components.checkpointer
    is_aborted = False
    while (step_plan := components.schedule.next(monitor.num_pending)) is not None:
        batch = components.loader.batch(state.step, state.progress)
        try:
            loss = components.step_runner.run(batch, step_plan)
        except StepAbortedError:
            monitor.record_abort(state.step)
            is_aborted = True
            break
        monitor.record_step(state.step, max(batch.images.shape[2:]), step_plan, loss)
        # Before the snapshots: a training resumed from one does not repeat this validation.
        if components.validation:
            components.validation.run_if_due(state, monitor)
        components.guard.snapshot_if_due()
        if checkpointer and checkpointer.is_due():
            # Ranks in lockstep must read a loss at the same step, so none may drain its queue. The checkpointer itself
            # refuses snapshots that are not finite.
            monitor.collect(drain=not monitor.in_lockstep)
            checkpointer.save(state.snapshot())
        elif checkpointer:
            checkpointer.probe_if_due()
    monitor.collect(drain=True)
    # No loss shows the effect of the last update.
    if not state.is_finite():
        raise NonFiniteError("the weights are not finite numbers", state.step)
    return is_aborted
