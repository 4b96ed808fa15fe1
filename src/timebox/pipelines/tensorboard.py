"""``timebox report --tensorboard``: write a run's metrics as TensorBoard event files."""

from pathlib import Path

from timebox.errors import OutputError, UsageError
from timebox.pipelines.report import read_run_data
from timebox.run.run import Run


def tensorboard(run: str | Path | Run, folder: str | Path) -> Path:
    """Write a run's loss, learning rate, momentum and validation accuracy by step as TensorBoard event files.

    Args:
        run: a run, or its directory.
        folder: the log directory; the files go into a folder in it that has the run's name.
    Returns:
        The folder of the files.
    Raises:
        UsageError: where the extra ``tensorboard`` is not installed. RunError, OutputError: as of :func:`report`.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'timebox-vision[tensorboard]'") from error
    facts = read_run_data(run if isinstance(run, Run) else Run(run, "cpu"), thumbnails=False)
    log_dir = Path(folder) / facts.name
    try:
        with SummaryWriter(str(log_dir)) as writer:
            for name in ("loss", "val_accuracy", "lr", "momentum"):
                for step, value in facts.curve(name):
                    writer.add_scalar(name, value, int(step))
    except OSError as error:
        raise OutputError(f"{str(log_dir)!r} cannot be written: {error.strerror or error}") from error
    return log_dir
