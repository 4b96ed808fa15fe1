"""``timebox report --tensorboard``: write a run's metrics as TensorBoard event files."""

from pathlib import Path

from timebox.callbacks.tensorboard import open_writer, summary_writer_class
from timebox.files import written
from timebox.paths import expand_user
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
    summary_writer_class()  # before the run is read
    run_data = read_run_data(Run.of(run, "cpu"), thumbnails=False)
    log_dir = Path(expand_user(folder)) / run_data.name
    with written(repr(str(log_dir))), open_writer(log_dir) as writer:
        for name in ("loss", "val_accuracy", "lr", "momentum"):
            for step, value in run_data.curve(name):
                writer.add_scalar(name, value, int(step))
    return log_dir
