"""``timebox report``: write the HTML page of a run from the files in its directory."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.verbs import ReportConfig
from timebox.errors import RunError
from timebox.file_versions import EXAMPLES_FORMAT, PREDICTIONS_FORMAT, THUMBNAILS_FORMAT
from timebox.files import write_whole, written
from timebox.jobs.finishing.images import examples_from_columns
from timebox.paths import expand_user
from timebox.reporting import RunData, SplitPredictions, report_page
from timebox.run.files import EXAMPLES, METRICS, PREDICTIONS, REPORT, THUMBNAILS, read_arrays
from timebox.run.metrics_log import downsampled_metrics
from timebox.run.results.predictions import problem_with
from timebox.run.results.thumbnails import Thumbnails, thumbnails_from_columns
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
        predictions = _predictions(read_arrays(run.path / PREDICTIONS, PREDICTIONS_FORMAT), num_classes)
        return RunData(
            run.path.resolve().name,
            run.summary,
            run.class_names,
            downsampled_metrics(metrics) if os.path.lexists(metrics) else [],
            predictions,
            examples_from_columns(read_arrays(run.path / EXAMPLES, EXAMPLES_FORMAT), num_classes) if thumbnails else [],
            _data_path(run),
            _thumbnails(run, predictions) if thumbnails else None,
            thumbnails,
        )
    except (ValueError, TypeError, IndexError) as error:
        raise RunError(f"run {str(run.path)!r} is damaged: {error}") from error


def _predictions(columns: dict[str, NDArray[np.generic]], num_classes: int) -> list[SplitPredictions]:
    """The splits in predictions.npz, test first. Raises ValueError where a column is missing or damaged."""
    if not columns:
        return []
    try:
        splits, labels, probabilities, ids = (columns[name] for name in ("split", "label", "probabilities", "id"))
    except KeyError as error:
        raise ValueError(f"{PREDICTIONS} lacks {error}") from error
    if problem := problem_with(labels, probabilities, num_classes):
        raise ValueError(f"{PREDICTIONS} {problem}")
    return [
        SplitPredictions(
            split, labels[in_split].astype(np.int64), probabilities[in_split].astype(np.float32), ids[in_split]
        )
        for split in ("test", "val")
        if (in_split := splits == split).any()
    ]


def _thumbnails(run: Run, predictions: Sequence[SplitPredictions]) -> Thumbnails | None:
    """The images in thumbnails.npz, None without them. Raises ValueError where they do not fit the predictions."""
    columns = read_arrays(run.path / THUMBNAILS, THUMBNAILS_FORMAT)
    num_rows = {one.split: one.num_images for one in predictions}
    return thumbnails_from_columns(columns, num_rows) if columns and predictions else None


def _data_path(run: Run) -> str:
    """The path of the data that the run was trained on, empty where it is unknown."""
    source = run.config.get("source")
    data = source.get("data") if isinstance(source, dict) else None
    return data if isinstance(data, str) else ""


def write_page(page: str, path: Path) -> Path:
    """Write an HTML page; its path. Raises OutputError where that is not possible."""
    with written(repr(str(path))):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page.encode("utf-8", "backslashreplace"))
    return path
