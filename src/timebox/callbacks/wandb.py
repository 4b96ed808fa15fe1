"""``WandbCallback``: a training as a run of Weights & Biases."""

from math import isfinite
from typing import Any, Literal

from timebox.callbacks.events import EndInfo, PlanInfo, StepInfo, ValidationInfo
from timebox.errors import UsageError

# Numbers of the summary that are recorded at the end.
FINAL_VALUES = ("val_accuracy", "test_accuracy", "elapsed_seconds", "epochs", "steps")


class WandbCallback:
    """Records a training as a run of Weights & Biases: recipe and budget as its config, loss, learning rate, images per
    second and accuracies as its history.

    Args:
        project: name of the project.
        mode: ``offline`` writes files that ``wandb sync`` uploads later; ``online`` uploads while the training goes on,
            and needs ``wandb login`` before.
    Raises:
        UsageError: where the extra ``wandb`` is not installed, and for another mode.
    """

    def __init__(self, project: str = "timebox", mode: Literal["offline", "online"] = "offline") -> None:
        if mode not in ("offline", "online"):
            raise UsageError(f"mode {mode!r} must be 'offline' or 'online'")
        self._wandb, self._project, self._mode = _import_wandb(), project, mode
        self._run: Any = None

    def on_plan(self, info: PlanInfo) -> None:
        """Begin a run of Weights & Biases with the config."""
        config = {**info.recipe, "budget_seconds": info.budget_seconds, "expected_steps": info.expected_steps}
        # Its own lines would break the progress display, and its hooks would take stdout.
        settings = self._wandb.Settings(silent=True, console="off")
        name = info.run_directory.resolve().name
        self._run = self._wandb.init(
            project=self._project, name=name, mode=self._mode, config=config, settings=settings
        )

    def on_step(self, info: StepInfo) -> None:
        """Record loss, learning rate and images per second."""
        self._log({name: value for name, value in info.curves.items() if isfinite(value)}, info.step)

    def on_validation(self, info: ValidationInfo) -> None:
        """Record the validation accuracy."""
        self._log({"val_accuracy": info.accuracy}, info.step)

    def on_end(self, info: EndInfo) -> None:
        """Record the final accuracies, and end the run of Weights & Biases."""
        if self._run:
            final = {f"final_{name}": info.summary.get(name) for name in FINAL_VALUES}
            self._run.summary.update({name: value for name, value in final.items() if value is not None})
            self._run.finish(exit_code=0 if info.is_finished else 1)
            self._run = None

    def _log(self, values: dict[str, float], step: int) -> None:
        if self._run:
            self._run.log(values, step=step)


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise UsageError("Weights & Biases is not installed: pip install 'timebox-vision[wandb]'") from error
    return wandb
