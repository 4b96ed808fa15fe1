"""``timebox report``: write the HTML page of a run from the files in its directory."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.verbs import ReportConfig
from timebox.errors import RunError
from timebox.file_versions import EXAMPLES_FORMAT, PREDICTIONS_FORMAT
from timebox.files import write_whole, written
from timebox.jobs.examples import examples_from_columns
from timebox.paths import expand_user
from timebox.reporting import RunData, SplitPredictions, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT, read_arrays
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.results.predictions import problem_with
from timebox.run.run import Run


@refuse_unknown_arguments
def report(run: str | Path | Run, *, output: str | Path | None = None, thumbnails: bool = True) -> Path:
    """Write the self-contained HTML page of a run again.

    Args:
        run: a run, or its directory.
        output: path of the page, default ``report.html`` in the run directory.
        thumbnails: whether the page shows images of the data, if the run directory holds some.
    Returns:
        The path of the page.
    Raises:
        UsageError: for an output that is no path. RunError: where the run cannot be read. OutputError: where the page
        cannot be written.

    >>> import timebox
    >>> timebox.report("runs/demo", output="demo.html").name
    'demo.html'
    """
    run = Run.of(run, "cpu")
    ReportConfig.from_call({**locals(), "run": run.path})
    return write_page(
        report_page(read_run_data(run, thumbnails)), Path(expand_user(output)) if output else run.path / REPORT
    )


def read_run_data(run: Run, thumbnails: bool = True) -> RunData:
    """The content of a run's page. Raises RunError where a file of the run is damaged."""
    metrics, num_classes = run.path / METRICS, len(run.class_names)
    try:
        return RunData(
            run.path.resolve().name,
            run.summary,
            run.class_names,
            downsampled_metrics(metrics) if os.path.lexists(metrics) else [],
            _predictions(read_arrays(run.path / PREDICTIONS, PREDICTIONS_FORMAT), num_classes),
            examples_from_columns(read_arrays(run.path / EXAMPLES, EXAMPLES_FORMAT), num_classes) if thumbnails else [],
        )
    except (ValueError, TypeError, IndexError) as error:
        raise RunError(f"run {str(run.path)!r} is damaged: {error}") from error


def _predictions(columns: dict[str, NDArray[np.generic]], num_classes: int) -> list[SplitPredictions]:
    """The splits in predictions.npz, test first. Raises ValueError where a column is missing or damaged."""
    if not columns:
        return []
    try:
        splits, labels, probabilities = columns["split"], columns["label"], columns["probabilities"]
    except KeyError as error:
        raise ValueError(f"{PREDICTIONS} lacks {error}") from error
    if problem := problem_with(labels, probabilities, num_classes):
        raise ValueError(f"{PREDICTIONS} {problem}")
    return [
        SplitPredictions(split, labels[in_split].astype(np.int64), probabilities[in_split].astype(np.float32))
        for split in ("test", "val")
        if (in_split := splits == split).any()
    ]


def write_page(page: str, path: Path) -> Path:
    """Write an HTML page; its path. Raises OutputError where that is not possible."""
    with written(repr(str(path))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode("utf-8", "backslashreplace"))
    return path
