"""``TensorBoardCallback``: the curves of a training in TensorBoard while it goes on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from timebox.callbacks.events import EndInfo, PlanInfo, StepInfo, ValidationInfo
from timebox.errors import UsageError
from timebox.paths import expand_user

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# Longest time for which values wait before they are written to the file.
FLUSH_SECONDS = 5


class TensorBoardCallback:
    """Writes loss, learning rate, images per second and validation accuracy as they come, for TensorBoard to show.

    Args:
        log_dir: the files go into a folder in it that has the run's name. None: ``tensorboard`` beside the run
            directory, such as ``runs/tensorboard``.
    Raises:
        UsageError: where the extra ``tensorboard`` is not installed.

    >>> import timebox
    >>> tracker = timebox.TensorBoardCallback("logs")
    >>> run = timebox.train("photos", steps=20, out="runs/watched", callbacks=[tracker])
    >>> from pathlib import Path
    >>> [path.name for path in Path("logs").iterdir()]
    ['watched']
    """

    def __init__(self, log_dir: str | Path | None = None) -> None:
        self._log_dir = None if log_dir is None else Path(expand_user(log_dir))
        self._writer: SummaryWriter | None = None
        summary_writer_class()  # imported here: it takes a second, and may be missing

    def on_plan(self, info: PlanInfo) -> None:
        """Begin a file for the run."""
        folder = self._log_dir or info.run_directory.parent / "tensorboard"
        self._writer = open_writer(folder / info.run_directory.resolve().name)

    def on_step(self, info: StepInfo) -> None:
        """Write loss, learning rate and images per second."""
        self._write(info.curves, info.step)

    def on_validation(self, info: ValidationInfo) -> None:
        """Write the validation accuracy."""
        self._write({"val_accuracy": info.accuracy}, info.step)

    def on_end(self, info: EndInfo) -> None:
        """Write the final accuracies, and close the file."""
        if self._writer:
            steps = info.summary.get("steps")
            for name in ("val_accuracy", "test_accuracy"):
                value = info.summary.get(name)
                if isinstance(steps, int) and isinstance(value, float):
                    self._write({name: value}, steps)
            self._writer.close()
            self._writer = None

    def _write(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            if self._writer:
                self._writer.add_scalar(name, value, step)


def summary_writer_class() -> Any:
    """TensorBoard's ``SummaryWriter``. Raises UsageError where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'timebox-vision[tensorboard]'") from error
    return SummaryWriter


def open_writer(folder: Path) -> "SummaryWriter":
    """A writer of event files in a folder, to be closed. Raises UsageError where TensorBoard is not installed."""
    writer: SummaryWriter = summary_writer_class()(str(folder), flush_secs=FLUSH_SECONDS)
    return writer
