"""``timebox compare``: runs side by side."""

from collections.abc import Sequence
from pathlib import Path

from timebox.configs.call import refuse_unknown_arguments
from timebox.configs.verbs import CompareConfig
from timebox.errors import UsageError
from timebox.paths import expand_user
from timebox.pipelines.report import read_run_data, write_page
from timebox.reporting import RunData, comparison_page
from timebox.run.run import Run


@refuse_unknown_arguments
def compare(runs: Sequence[str | Path | Run], *, output: str | Path | None = None) -> list[RunData]:
    """Compare the results of runs.

    Args:
        runs: two or more, or their directories.
        output: path of an HTML page to write; None for none.
    Returns:
        The content of each run's page, in order.
    Raises:
        UsageError: for fewer than two, and an output that is no path. RunError, OutputError: as of :func:`report`.

    >>> import timebox
    >>> [one.name for one in timebox.compare(["runs/demo", "runs/demo"], output="comparison.html")]
    ['demo', 'demo']
    """
    if isinstance(runs, str | Path | Run) or len(runs) < 2:
        raise UsageError("give two runs or more to compare, as a list")
    CompareConfig.from_call({"runs": [], "output": output})
    contents = [read_run_data(Run.of(run, "cpu"), thumbnails=False) for run in runs]
    if output:
        write_page(comparison_page(contents), Path(expand_user(output)))
    return contents
