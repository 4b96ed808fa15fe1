"""The monitor of a training whose device lags behind: every step is logged, also around faults."""

from collections.abc import Mapping

import pytest
import torch

from timebox.clock import Deadline
from timebox.data.device.augment import ChannelStatistics
from timebox.data.device.loader import Augmentation, DeviceLoader, Sampling
from timebox.data.device.resident import ResidentImages
from timebox.progress import SilentReporter
from timebox.runtime.async_scalars import AsyncScalars
from timebox.runtime.faults import NonFiniteError
from timebox.training.monitor import StepRecord, TrainingMonitor
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule
from tiny import CPU, bands, tiny_recipe

LAG = 3


class LaggingScalars(AsyncScalars[StepRecord]):
    """Returns scalars some steps after they were pushed, as on a GPU; then all of them."""

    def poll(self, drain: bool = False) -> list[tuple[StepRecord, float]]:
        return super().poll(drain) if drain or self.num_pending > LAG else []


class MonitoredTraining:
    """A monitor and its log."""

    def __init__(self) -> None:
        self.log: list[Mapping[str, object]] = []
        self.schedule = PacedSchedule(StepPacer(200), tiny_recipe(), 16)
        half = torch.full((3,), 0.5)
        images, statistics = ResidentImages.from_dataset(bands(100), CPU), ChannelStatistics(half, half)
        loader = DeviceLoader(images, statistics, Augmentation(), Sampling(16, seed=0))
        self.monitor = TrainingMonitor(loader, self.schedule, Deadline(None), self.log.append, SilentReporter())
        self.monitor._losses = LaggingScalars(CPU)

    def issue(self, number: int, loss: float = 1.0) -> None:
        step_plan = self.schedule.next(0)
        assert step_plan
        self.monitor.record_step(number, 8, step_plan, torch.tensor(loss))

    @property
    def steps(self) -> list[object]:
        return [f"rollback to {entry['step']}" if "rolled_back" in entry else entry["step"] for entry in self.log]


def test_steps_in_flight_at_a_rollback_are_logged() -> None:
    """The restored snapshot may be newer than the last loss that had arrived."""
    training = MonitoredTraining()
    for number in (1, 2, 3):
        training.issue(number)
    assert training.steps == []
    training.monitor.record_rollback(2)
    assert training.steps == [1, 2, 3, "rollback to 2"]
    assert training.monitor.num_pending == 0


def test_a_nan_among_several_losses_that_arrive_at_once_is_an_error() -> None:
    training = MonitoredTraining()
    for number, loss in enumerate((1.0, float("nan"), 1.0), 1):
        training.issue(number, loss)
    with pytest.raises(
        NonFiniteError, match=r"^the loss became nan at a learning rate of 0\.00613 at step 2$"
    ) as caught:
        training.issue(4)
    assert caught.value.step == 2
    assert training.steps == [1, 2, 3, 4]
    assert [entry["loss"] for entry in training.log] == [1.0, None, 1.0, 1.0]


def test_a_nan_in_flight_at_a_rollback_is_logged_only() -> None:
    training = MonitoredTraining()
    training.issue(1)
    training.issue(2, float("nan"))
    training.monitor.record_rollback(1)
    for number in (2, 3, 4, 5):
        training.issue(number)
    training.monitor.collect(drain=True)
    assert training.steps == [1, 2, "rollback to 1", 2, 3, 4, 5]
