"""A training as an offline run of Weights & Biases."""

import sys
from pathlib import Path
from typing import Any

import pytest

from callbacks.recording import Notes, step_info
from callbacks.test_training import wait_for
from small_runs import quick
from timebox.callbacks.events import EndInfo, PlanInfo, ValidationInfo
from timebox.callbacks.wandb import WandbCallback
from timebox.errors import UsageError


def test_without_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UsageError, match=r"^Weights & Biases is not installed: pip install 'timebox-vision\[wandb\]'$"):
        WandbCallback()


def test_another_mode() -> None:
    with pytest.raises(UsageError, match=r"^mode 'on' must be 'offline' or 'online'$"):
        WandbCallback(mode="on")  # type: ignore[arg-type]


@pytest.fixture
def wandb() -> Any:
    return pytest.importorskip("wandb", reason="wandb is not installed", exc_type=ImportError)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_an_offline_run(wandb: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    notes = Notes()
    quick(data, tmp_path / "run", steps=10, test=0.2, callbacks=[WandbCallback("photos")], reporter=notes)
    assert notes.about_callbacks() == []
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    words = (b"loss", b"val_accuracy", b"final_test_accuracy", b"photos", b"ghost_size")
    # A process of wandb's own writes the file, and may do so a moment after the run has ended.
    wait_for(lambda: all(word in file.read_bytes() for word in words))


class FakeRun:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[dict[str, float], int]] = []
        self.summary: dict[str, object] = {}
        self.exit_code = -1

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((values, step))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class FakeWandb:
    """Stands for the package."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.run = FakeRun()

    def Settings(self, **given: object) -> dict[str, object]:  # noqa: N802
        return given

    def init(self, **given: object) -> FakeRun:
        self.given = given
        return self.run


def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeWandb()
    monkeypatch.setattr("timebox.callbacks.wandb._import_wandb", lambda: fake)
    tracker = WandbCallback("photos", mode="online")
    tracker.on_step(step_info(1))  # before the run has begun
    tracker.on_plan(PlanInfo(tmp_path / "run", (), {"width": 4}, 60.0, 3))
    tracker.on_step(step_info(1, loss=float("nan")))
    tracker.on_validation(ValidationInfo(1, 0.5, 0.75))
    tracker.on_end(EndInfo(tmp_path / "run", {"steps": 3, "test_accuracy": None, "val_accuracy": 0.5}))
    assert fake.given == {
        "project": "photos",
        "name": "run",
        "mode": "online",
        "config": {"width": 4, "budget_seconds": 60.0, "expected_steps": 3},
        "settings": {"silent": True, "console": "off"},
    }
    assert fake.run.logged == [({"lr": 0.01, "images_per_second": 100.0}, 1), ({"val_accuracy": 0.75}, 1)]
    assert fake.run.summary == {"final_val_accuracy": 0.5, "final_steps": 3}
    assert fake.run.exit_code == 0
