"""``MLflowCallback``: a training as a run of MLflow, with its settings, curves, report and model."""

import os
import time
from math import isfinite
from pathlib import Path
from typing import Any

from timebox.callbacks.events import EndInfo, PlanInfo, StepInfo, ValidationInfo
from timebox.errors import UsageError
from timebox.run.files import CONFIG, METRICS, MODEL, PRETRAINED, REPORT, SUMMARY

# Files of a run directory that are uploaded, where they are there.
ARTIFACTS = (REPORT, SUMMARY, CONFIG, MODEL, PRETRAINED, METRICS)
# Values of steps are sent together: after so many seconds, or values, of which a request may have 1,000.
SEND_SECONDS, MAX_VALUES = 1.0, 900
MAX_PARAMS = 100  # of a request
# Numbers of the summary that become metrics.
FINAL_METRICS = ("val_accuracy", "test_accuracy", "elapsed_seconds", "epochs", "images_per_second")


class MLflowCallback:
    """Records a training as a run of MLflow: recipe and budget as parameters, loss, learning rate, images per second
    and accuracies as metrics, and report.html and the files of the model as artifacts.

    Args:
        tracking_uri: of the server, or ``sqlite:///FILE``. None: as MLflow finds it, such as in
            ``MLFLOW_TRACKING_URI``.
        experiment: name of the experiment, which is made where there is none. None: ``MLFLOW_EXPERIMENT_NAME``, else
            ``Default``.
    Raises:
        UsageError: where the extra ``mlflow`` is not installed.

    A server that is slow or does not answer takes nothing from the training: see ``docs/guides/callbacks.md``.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self._mlflow, self._tracking_uri = _import_mlflow(), tracking_uri
        self._experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
        self._client: Any = None
        self._run_id: str | None = None
        self._values: list[Any] = []
        self._sent_at = 0.0

    def on_plan(self, info: PlanInfo) -> None:
        """Begin a run of MLflow with the parameters."""
        self._run_id, self._values = None, []
        self._client = self._mlflow.MlflowClient(self._tracking_uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        run = self._client.create_run(experiment_id, run_name=info.run_directory.resolve().name)
        self._run_id, self._sent_at = run.info.run_id, time.monotonic()
        budget = {} if info.budget_seconds is None else {"budget_seconds": info.budget_seconds}
        params = {**info.recipe, **budget, "expected_steps": info.expected_steps}
        as_params = [self._mlflow.entities.Param(name, str(value)) for name, value in params.items()]
        for start in range(0, len(as_params), MAX_PARAMS):
            self._client.log_batch(self._run_id, params=as_params[start : start + MAX_PARAMS])

    def on_step(self, info: StepInfo) -> None:
        """Record loss, learning rate and images per second; they are sent about once a second."""
        self._add(info.curves, info.step)
        if len(self._values) >= MAX_VALUES or time.monotonic() - self._sent_at >= SEND_SECONDS:
            self._send()

    def on_validation(self, info: ValidationInfo) -> None:
        """Record the validation accuracy."""
        self._add({"val_accuracy": info.accuracy}, info.step)

    def on_end(self, info: EndInfo) -> None:
        """Send what is left, upload the artifacts, and end the run of MLflow."""
        if self._run_id is None:
            return
        steps = info.summary.get("steps")
        final = {name: info.summary.get(name) for name in FINAL_METRICS}
        numbers = {name: float(value) for name, value in final.items() if isinstance(value, int | float)}
        self._add(numbers, steps if isinstance(steps, int) else 0)
        self._send()
        if info.is_finished:
            self._upload(info.run_directory)
        status = "FINISHED" if info.is_finished else "KILLED" if info.error is None else "FAILED"
        self._client.set_terminated(self._run_id, status)
        self._run_id = None

    def _upload(self, run_directory: Path) -> None:
        for name in ARTIFACTS:
            if (file := run_directory / name).is_file():
                self._client.log_artifact(self._run_id, str(file))

    def _add(self, values: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        entity = self._mlflow.entities.Metric
        self._values += [entity(name, value, now, step) for name, value in values.items() if isfinite(value)]

    def _send(self) -> None:
        """Send the values that wait; those that a failed request held are not sent again."""
        values, self._values, self._sent_at = self._values, [], time.monotonic()
        if self._run_id and values:
            self._client.log_batch(self._run_id, metrics=values)


def _import_mlflow() -> Any:
    try:
        import mlflow
        import mlflow.entities
    except ImportError as error:
        raise UsageError("MLflow is not installed: pip install 'timebox-vision[mlflow]'") from error
    # MLflow would print the address of the run on stdout, which may be a pipe for JSON.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return mlflow
