"""The books of a training: finished steps, speed, validations, and what is told to the outside."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import isfinite, nan

from torch import Tensor

from timebox.clock import Deadline
from timebox.data.device.loader import DeviceLoader
from timebox.reporter import Reporter, StepStatus
from timebox.runtime.async_scalars import AsyncScalars
from timebox.runtime.faults import NonFiniteError
from timebox.training.schedule import Schedule, StepPlan


@dataclass(frozen=True)
class StepRecord:
    """One step: what metrics.jsonl records of it, besides its loss. The last five are all that a replay needs."""

    step: int
    epoch: float
    resolution: int
    progress: float
    lr: float
    momentum: float
    micro_batch: int


class TrainingMonitor:
    """Follows a training without changing it.

    Args:
        log: takes each entry of metrics.jsonl.
        in_lockstep: whether other processes train too, see :class:`timebox.runtime.async_scalars.AsyncScalars`.
    """

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
        self._finished: AsyncScalars[StepRecord] = AsyncScalars(loader.labels.device, in_lockstep)
        self._num_finished = 0
        self._loss = nan
        self._val_accuracy: float | None = None
        self._started = deadline.elapsed()
        self._paused_seconds = 0.0

    @property
    def num_pending(self) -> int:
        """Steps issued and not yet known to be finished."""
        return self._finished.num_pending

    def step_issued(self, number: int, resolution: int, step_plan: StepPlan, loss: Tensor) -> None:
        """Take note of a step just issued, and of those that have finished meanwhile.

        Args:
            number: steps taken so far, this one included.
            resolution: longer side of its images in pixels.
        Raises:
            NotFiniteError: where the loss of a finished one is no finite number.
        """
        epoch = number * self._loader.batch_size / len(self._loader)
        step = StepRecord(step=number, epoch=epoch, resolution=resolution, **asdict(step_plan))
        self._finished.push(step, loss)
        self.collect(drain=False)
        remaining = self._deadline.remaining()
        self._reporter.step(
            StepStatus(
                step=step.step,
                total_steps=step.step + self._schedule.steps_left,
                epoch=step.epoch,
                progress=step.progress,
                loss=self._loss,
                lr=step.lr,
                momentum=step.momentum,
                images_per_second=self.images_per_second,
                seconds_left=None if remaining == float("inf") else remaining,
                val_accuracy=self._val_accuracy,
            )
        )

    def run_validation(self, step: int, progress: float, measure: Callable[[], float]) -> float:
        """Measure validation accuracy, in a phase of its own that does not count as training time; seconds it took."""
        self.collect(drain=True)
        before = self._deadline.elapsed()
        with self._deadline.phase("validating"):
            self._val_accuracy = measure()
        seconds = self._deadline.elapsed() - before
        self._paused_seconds += seconds
        self._schedule.paused()
        self._log({"step": step, "progress": progress, "val_accuracy": self._val_accuracy})
        return seconds

    def rolled_back(self, step: int) -> None:
        """The training stands at ``step`` again. Steps in flight are taken note of: some may be older than that."""
        self._read(self._finished.poll(drain=True))
        self._log({"step": step, "rolled_back": True})

    def collect(self, drain: bool) -> None:
        """Read what has finished; with ``drain`` wait for all of it."""
        arrived = self._finished.poll(drain)
        self._schedule.finished(len(arrived))
        if fault := self._read(arrived):
            raise fault

    def _read(self, arrived: list[tuple[StepRecord, float]]) -> NonFiniteError | None:
        """Take note of finished steps, all of them; the first fault among them."""
        fault = None
        for step, loss in arrived:
            self._num_finished += 1
            self._loss = loss
            self._log({**asdict(step), "loss": loss if isfinite(loss) else None})
            # Gradients that overflow in fp16 show in no loss and are skipped; a forward pass spoils statistics.
            if not isfinite(loss) and fault is None:
                fault = NonFiniteError(f"the loss became {loss} at a learning rate of {step.lr:.3g}", step.step)
        return fault

    @property
    def images_per_second(self) -> float:
        """Over the whole training, validation left out."""
        seconds = self._deadline.elapsed() - self._started - self._paused_seconds
        return self._num_finished * self._loader.batch_size / max(seconds, 1e-9)
