"""The curves of a training in TensorBoard's files, while it goes on and afterwards."""

import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks.recording import step_info
from small_runs import quick
from timebox.callbacks.events import EndInfo, PlanInfo, ValidationInfo
from timebox.callbacks.tensorboard import TensorBoardCallback
from timebox.errors import UsageError
from timebox.pipelines.report import read_run_data

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events: Any = accumulator.EventAccumulator(str(folder)).Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def test_the_curves_are_those_of_the_run(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", steps=10, test=0.2, callbacks=[TensorBoardCallback(tmp_path / "logs")])
    found, facts = scalars(tmp_path / "logs" / "run"), read_run_data(run)
    for name in ("loss", "lr"):
        assert found[name] == [(step, pytest.approx(value)) for step, value in facts.curve(name)]
    assert [step for step, _ in found["images_per_second"]] == list(range(1, 11))
    *during, last = found["val_accuracy"]
    assert during == [(step, pytest.approx(value)) for step, value in facts.curve("val_accuracy")]
    assert last == (10, pytest.approx(run.val_accuracy))
    assert found["test_accuracy"] == [(10, pytest.approx(run.test_accuracy))]


def test_the_folder_lies_beside_the_run(tmp_path: Path) -> None:
    tracker = TensorBoardCallback()
    tracker.on_plan(PlanInfo(tmp_path / "runs" / "one", (), {}, None, 3))
    tracker.on_step(step_info(1))
    tracker.on_validation(ValidationInfo(1, 0.5, 0.75))
    tracker.on_end(EndInfo(tmp_path / "runs" / "one", error="KilledError"))
    tracker.on_step(step_info(2))  # after the end nothing is written
    found = scalars(tmp_path / "runs" / "tensorboard" / "one")
    assert (len(found["loss"]), found["val_accuracy"]) == (1, [(1, 0.75)])


def test_without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        UsageError, match=r"^TensorBoard is not installed: pip install 'timebox-vision\[tensorboard\]'$"
    ):
        TensorBoardCallback()
