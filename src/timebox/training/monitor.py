"""Monitor of a training: collects losses, measures throughput, writes the metrics log and calls the reporter."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite, nan

from torch import Tensor

from timebox.clock import Deadline
from timebox.data.device.loader import DeviceLoader
from timebox.progress import Reporter, StepStatus
from timebox.runtime.async_scalars import AsyncScalars
from timebox.runtime.faults import NonFiniteError
from timebox.training.schedule import Schedule, StepPlan


@dataclass(frozen=True)
class StepRecord:
    """One step from 1 on, as metrics.jsonl records it, with the longer side of its images in pixels."""

    step: int
    epoch: float
    resolution: int
    plan: StepPlan

    def to_entry(self, loss: float) -> dict[str, object]:
        """A line of metrics.jsonl; a loss that is not finite becomes null."""
        settings = {name: value for name, value in asdict(self.plan).items() if value is not None}
        entry = {"step": self.step, "epoch": self.epoch, "resolution": self.resolution, **settings}
        return {**entry, "loss": loss if isfinite(loss) else None}


class TrainingMonitor:
    """Follows a training without changing its result; ``in_lockstep`` as of :class:`AsyncScalars`."""

    def __init__(
        self,
        loader: DeviceLoader,
        schedule: Schedule,
        deadline: Deadline,
        log: Callable[[Mapping[str, object]], None],
        reporter: Reporter,
        in_lockstep: bool = False,
    ) -> None:
        self._loader = loader
        self.in_lockstep = in_lockstep
        self._schedule, self._deadline, self._log, self._reporter = schedule, deadline, log, reporter
        self._losses: AsyncScalars[StepRecord] = AsyncScalars(loader.labels.device, in_lockstep)
        self._num_finished = 0
        self._last_loss = nan
        self._val_accuracy: float | None = None
        self._start_seconds = deadline.elapsed()
        self._validation_seconds = 0.0

    @property
    def num_pending(self) -> int:
        """Steps issued to the device whose loss has not been read yet."""
        return self._losses.num_pending

    def record_step(self, step: int, resolution: int, step_plan: StepPlan, loss: Tensor) -> None:
        """Report a step just issued, and log the steps that have finished meanwhile; raises as :meth:`collect`."""
        record = StepRecord(step, step * self._loader.batch_size / len(self._loader), resolution, step_plan)
        self._losses.push(record, loss)
        self.collect(drain=False)
        remaining = self._deadline.remaining()
        self._reporter.step(
            StepStatus(
                step=step,
                total_steps=step + self._schedule.steps_left,
                epoch=record.epoch,
                progress=step_plan.progress,
                loss=self._last_loss,
                lr=step_plan.lr,
                momentum=step_plan.momentum,
                images_per_second=self.images_per_second,
                seconds_left=None if remaining == float("inf") else remaining,
                val_accuracy=self._val_accuracy,
            )
        )

    def run_validation(self, step: int, progress: float, measure: Callable[[], float]) -> float:
        """Measure and log the validation accuracy, in a phase that is no training time. Returns its seconds."""
        self.collect(drain=True)
        start = self._deadline.elapsed()
        with self._deadline.phase("validating"):
            self._val_accuracy = measure()
        seconds = self._deadline.elapsed() - start
        self._validation_seconds += seconds
        self._schedule.pacer.restart_timer()
        self._log({"step": step, "progress": progress, "val_accuracy": self._val_accuracy})
        return seconds

    def record_rollback(self, step: int) -> None:
        """Log the losses of all steps in flight, some of them before ``step``, then the return to ``step``."""
        self._log_losses(self._losses.poll(drain=True))
        self._log({"step": step, "rolled_back": True})

    def record_abort(self, step: int) -> None:
        """Log that the training ends after ``step`` steps, as time ran out in the next one."""
        self.collect(drain=True)
        self._log({"step": step, "aborted": True})

    def collect(self, drain: bool) -> None:
        """Log the steps that have finished; with ``drain`` wait for all. Raises NonFiniteError for a loss."""
        losses = self._losses.poll(drain)
        self._schedule.pacer.count_finished(len(losses))
        if fault := self._log_losses(losses):
            raise fault

    def _log_losses(self, losses: list[tuple[StepRecord, float]]) -> NonFiniteError | None:
        """Log every finished step; return the first loss that is not finite as an error, if any."""
        fault = None
        for record, loss in losses:
            self._num_finished += 1
            self._last_loss = loss
            self._log(record.to_entry(loss))
            # Gradients that overflow in fp16 are skipped and show in no loss. An overflow in the forward pass has
            # already changed the normalisation's running statistics.
            if not isfinite(loss) and fault is None:
                fault = NonFiniteError(
                    f"the loss became {loss} at a learning rate of {record.plan.lr:.3g}", record.step
                )
        return fault

    @property
    def images_per_second(self) -> float:
        """Throughput since the start of the monitor, validation excluded."""
        seconds = self._deadline.elapsed() - self._start_seconds - self._validation_seconds
        return self._num_finished * self._loader.batch_size / max(seconds, 1e-9)
