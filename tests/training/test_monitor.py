"""The books of a training whose device runs behind: no step is missing from the log, whatever goes wrong."""

from collections.abc import Mapping

import pytest
import torch

from timebox.clock import Deadline
from timebox.data.device.loader import Augmentation, DeviceLoader
from timebox.reporter import SilentReporter
from timebox.runtime.async_scalars import AsyncScalars
from timebox.runtime.faults import NonFiniteError
from timebox.training.monitor import StepRecord, TrainingMonitor
from timebox.training.pacer import StepPacer
from timebox.training.schedule import PacedSchedule
from tiny import CPU, bands, tiny_recipe

LAG = 3


class Late(AsyncScalars[StepRecord]):
    """Hands values out some steps after they came in, as a GPU does; then all that it has."""

    def poll(self, drain: bool = False) -> list[tuple[StepRecord, float]]:
        return super().poll(drain) if drain or self.num_pending > LAG else []


class Books:
    """A watch, and what it logs."""

    def __init__(self) -> None:
        self.log: list[Mapping[str, object]] = []
        self.schedule = PacedSchedule(StepPacer(200), tiny_recipe(), 16)
        half = torch.full((3,), 0.5)
        loader = DeviceLoader(bands(100), 16, half, half, Augmentation(), 0, CPU)
        self.monitor = TrainingMonitor(loader, self.schedule, Deadline(None), self.log.append, SilentReporter())
        self.monitor._losses = Late(CPU)

    def issue(self, number: int, loss: float = 1.0) -> None:
        step_plan = self.schedule.next(0)
        assert step_plan
        self.monitor.record_step(number, 8, step_plan, torch.tensor(loss))

    @property
    def steps(self) -> list[object]:
        return [f"back to {entry['step']}" if "rolled_back" in entry else entry["step"] for entry in self.log]


def test_steps_that_were_in_flight_when_the_training_went_back_are_logged() -> None:
    """The state it went back to may be newer than the last loss that had arrived."""
    books = Books()
    for number in (1, 2, 3):
        books.issue(number)
    assert books.steps == []
    books.monitor.record_rollback(2)
    assert books.steps == [1, 2, 3, "back to 2"]
    assert books.monitor.num_pending == 0


def test_a_fault_among_several_losses_that_arrive_at_once() -> None:
    books = Books()
    for number, loss in enumerate((1.0, float("nan"), 1.0), 1):
        books.issue(number, loss)
    with pytest.raises(
        NonFiniteError, match=r"^the loss became nan at a learning rate of 0\.00613 at step 2$"
    ) as caught:
        books.issue(4)
    assert caught.value.step == 2
    assert books.steps == [1, 2, 3, 4]
    assert [entry["loss"] for entry in books.log] == [1.0, None, 1.0, 1.0]


def test_a_fault_still_in_flight_is_undone_with_its_step() -> None:
    books = Books()
    books.issue(1)
    books.issue(2, float("nan"))
    books.monitor.record_rollback(1)
    for number in (2, 3, 4, 5):
        books.issue(number)
    books.monitor.collect(drain=True)
    assert books.steps == [1, 2, "back to 1", 2, 3, 4, 5]
