"""``timebox report`` and ``timebox compare``: pages made of what run directories hold."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.errors import OutputError, RunError, UsageError
from timebox.file_versions import EXAMPLES_FORMAT, PREDICTIONS_FORMAT
from timebox.files import write_whole
from timebox.jobs.examples import examples_from
from timebox.reporting import RunFacts, Scored, comparison_page, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT, read_arrays
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.run import Run

LARGEST_SUM_ERROR = 0.01  # of a row of probabilities


def report(run: str | Path | Run, *, output: str | Path | None = None, thumbnails: bool = True) -> Path:
    """Write a run's page again, one HTML file that needs nothing else.

    Args:
        run: a run, or its directory.
        output: where to, default ``report.html`` in the run directory.
        thumbnails: whether images of the data are shown, if the run kept any.
    Returns:
        Where it was written.
    Raises:
        RunError: where the run cannot be read. OutputError: where the page cannot be written.

    >>> import timebox
    >>> timebox.report("runs/demo", output="demo.html").name
    'demo.html'
    """
    run = run if isinstance(run, Run) else Run(run, "cpu")
    return _written(report_page(facts_of(run, thumbnails)), Path(output) if output else run.path / REPORT)


def compare(runs: Sequence[str | Path | Run], *, output: str | Path | None = None) -> list[RunFacts]:
    """What runs reached, side by side.

    Args:
        runs: two or more, or their directories.
        output: where to write a page as well.
    Returns:
        The facts of each, in order.
    Raises:
        UsageError: for fewer than two. RunError, OutputError: as of :func:`report`.

    >>> import timebox
    >>> [one.name for one in timebox.compare(["runs/demo", "runs/demo"], output="comparison.html")]
    ['demo', 'demo']
    """
    if len(runs) < 2:
        raise UsageError("give two runs or more to compare")
    facts = [facts_of(run if isinstance(run, Run) else Run(run, "cpu"), thumbnails=False) for run in runs]
    if output:
        _written(comparison_page(facts), Path(output))
    return facts


def tensorboard(run: str | Path | Run, folder: str | Path) -> Path:
    """Write a run's metrics as TensorBoard reads them: loss, rate, momentum and validation accuracy by step.

    Args:
        run: a run, or its directory.
        folder: where to; a folder named like the run is made in it.
    Returns:
        That folder.
    Raises:
        UsageError: where the extra ``tensorboard`` is not installed. RunError, OutputError: as of :func:`report`.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("writing for TensorBoard needs it: pip install 'timebox-vision[tensorboard]'") from error
    facts = facts_of(run if isinstance(run, Run) else Run(run, "cpu"), thumbnails=False)
    place = Path(folder) / facts.name
    try:
        with SummaryWriter(str(place)) as writer:
            for name in ("loss", "val_accuracy", "lr", "momentum"):
                for step, value in facts.curve(name):
                    writer.add_scalar(name, value, int(step))
    except OSError as error:
        raise OutputError(f"{str(place)!r} cannot be written: {error.strerror or error}") from error
    return place


def facts_of(run: Run, thumbnails: bool = True) -> RunFacts:
    """All that a page tells of a run. Raises RunError where a file of it is damaged."""
    metrics, num_classes = run.path / METRICS, len(run.class_names)
    try:
        return RunFacts(
            run.path.resolve().name,
            run.summary,
            run.class_names,
            downsampled_metrics(metrics) if metrics.is_file() else [],
            _scores(read_arrays(run.path / PREDICTIONS, PREDICTIONS_FORMAT), num_classes),
            examples_from(read_arrays(run.path / EXAMPLES, EXAMPLES_FORMAT), num_classes) if thumbnails else [],
        )
    except (ValueError, TypeError, IndexError) as error:
        raise RunError(f"run {str(run.path)!r} is damaged: {error}") from error


def _scores(columns: dict[str, NDArray[np.generic]], num_classes: int) -> list[Scored]:
    """The splits in predictions.npz, test first. Raises ValueError where it does not hold what it should."""
    if not columns:
        return []
    try:
        splits, labels, probabilities = columns["split"], columns["label"], columns["probabilities"]
    except KeyError as error:
        raise ValueError(f"{PREDICTIONS} lacks {error}") from error
    if probabilities.dtype != np.float32 or probabilities.shape != (len(labels), num_classes):
        raise ValueError(f"{PREDICTIONS} holds no probabilities of {num_classes} classes")
    chances = probabilities.astype(np.float32)
    if not (np.abs(chances.sum(1) - 1) < LARGEST_SUM_ERROR).all() or not (chances >= 0).all():
        raise ValueError(f"{PREDICTIONS} holds probabilities that are none")
    if labels.dtype != np.int64 or not np.isin(labels, np.arange(num_classes)).all():
        raise ValueError(f"{PREDICTIONS} holds labels that are none")
    return [
        Scored(split, labels[there].astype(np.int64), chances[there])
        for split in ("test", "val")
        if (there := splits == split).any()
    ]


def _written(page: str, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror or error}") from error
    return path
