"""A training as a run of MLflow, and servers that do not answer."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budgets import within_budget
from callbacks.recording import Notes, step_info
from callbacks.test_training import with_budget
from small_runs import quick
from timebox.callbacks.events import EndInfo, PlanInfo
from timebox.callbacks.mlflow import ARTIFACTS, MLflowCallback
from timebox.clock import now
from timebox.errors import UsageError
from timebox.pipelines.report import read_run_data
from timebox.run import Run


def test_without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"^MLflow is not installed: pip install 'timebox-vision\[mlflow\]'$"):
        MLflowCallback()


@pytest.fixture
def mlflow() -> Any:
    pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed")
    return pytest.importorskip("mlflow", reason="mlflow is not installed", exc_type=ImportError)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_a_run_of_mlflow(mlflow: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # artifacts go into a folder there
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    notes = Notes()
    tracker = MLflowCallback(uri, experiment="photos")
    run = quick(data, tmp_path / "run", steps=10, test=0.2, callbacks=[tracker], reporter=notes)
    assert notes.about_callbacks() == []
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("photos")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["width"] == "4"
    assert found.data.params["expected_steps"] == "10"
    assert len(found.data.params) == len(run.recipe.as_dict()) + 1
    losses = client.get_metric_history(found.info.run_id, "loss")
    facts = read_run_data(run)
    assert [(value.step, value.value) for value in losses] == [
        (step, pytest.approx(loss)) for step, loss in facts.curve("loss")
    ]
    assert found.data.metrics["test_accuracy"] == pytest.approx(run.test_accuracy)
    assert found.data.metrics["val_accuracy"] == pytest.approx(run.val_accuracy)
    uploaded = {file.path for file in client.list_artifacts(found.info.run_id)}
    assert uploaded == {name for name in ARTIFACTS if (run.path / name).is_file()}
    assert {"report.html", "model.safetensors", "model.json"} <= uploaded


class FakeClient:
    """Keeps the requests."""

    def __init__(self) -> None:
        self.status = ""
        self.metrics: list[tuple[str, float, int]] = []

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        self.metrics += [(value.key, value.value, value.step) for value in metrics]

    def set_terminated(self, run_id: str, status: str) -> None:
        self.status = status


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (EndInfo(Path("run"), {"stopped": True}), "KILLED"),
        (EndInfo(Path("run"), error="ValueError: no"), "FAILED"),
        (EndInfo(Path("run"), {"steps": 2, "test_accuracy": 0.5}), "FINISHED"),
    ],
)
def test_how_a_run_of_mlflow_ends(mlflow: Any, end: EndInfo, status: str) -> None:
    tracker, client = MLflowCallback("http://nowhere"), FakeClient()
    tracker._client, tracker._run_id, tracker._sent_at = client, "1", now()
    tracker.on_step(step_info(1, loss=float("nan")))
    tracker.on_end(end)
    assert client.status == status
    final = [("test_accuracy", 0.5, 2)] if status == "FINISHED" else []
    assert client.metrics == [("lr", 0.01, 1), ("images_per_second", 100.0, 1), *final]
    tracker.on_end(end)
    assert len(client.metrics) == 2 + len(final)


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_could_not_begin_is_not_recorded(mlflow: Any, tmp_path: Path) -> None:
    tracker = MLflowCallback("nonsense://host")
    with pytest.raises(Exception, match="nonsense"):
        tracker.on_plan(PlanInfo(tmp_path / "run", (), {}, None, 3))
    tracker.on_step(step_info(1))
    tracker.on_end(EndInfo(tmp_path / "run"))


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
def test_a_server_that_does_not_answer_makes_no_run_late(
    mlflow: Any, data: Path, tmp_path: Path, silent_server: str
) -> None:
    calls, notes = [], Notes()

    def timed(seconds: float) -> Run:
        tracker, began = MLflowCallback(silent_server), now()
        try:
            return with_budget(data, tmp_path / "run", callbacks=[tracker], reporter=notes)(seconds)
        finally:
            calls.append(now() - began)

    run, budget = within_budget(timed, 8.0)
    assert calls[-1] <= budget
    assert run.summary["late"] is False
    (line,) = [line for line in notes.lines if "left behind" in line]
    assert line.startswith("on_plan of the callback MLflowCallback has not returned in time, and ")
