"""`timebox report` and `timebox compare`: what is asked for, and what is printed."""

from pathlib import Path

import pytest

from timebox.reporting import RunData

from .conftest import Command, Replace


def facts(name: str, **summary: object) -> RunData:
    return RunData(name, {"test_accuracy": 0.5, "recipe": {"name": "auto", "width": 8}, **summary}, (), (), (), ())


def test_the_page_is_written_where_it_is_asked_for(timebox: Command, replace: Replace) -> None:
    asked: list[tuple[object, ...]] = []

    def report(run: str, *, output: str | None, thumbnails: bool) -> Path:
        asked.append((run, output, thumbnails))
        return Path(output or "runs/x/report.html")

    replace("timebox.pipelines.report", report=report)
    replace("timebox.pipelines.tensorboard", tensorboard=lambda run, folder: Path(folder) / "x")
    assert timebox("report", "runs/x").out.split() == ["written", "runs/x/report.html"]
    assert timebox("report", "runs/x", "--output", "y.html", "--no-thumbnails", "--json").json() == {"report": "y.html"}
    told = timebox("report", "runs/x", "--tensorboard", "t", "--json").json()
    assert told == {"report": "runs/x/report.html", "tensorboard": "t/x"}
    del asked[2:]
    assert asked == [("runs/x", None, True), ("runs/x", "y.html", False)]


@pytest.fixture
def two_runs(replace: Replace) -> None:
    def compare(runs: list[str], output: str | None) -> list[RunData]:
        return [facts(f"run-{place}", recipe={"name": "auto", "width": 8 * place}) for place in range(1, len(runs) + 1)]

    replace("timebox.pipelines.compare", compare=compare)


@pytest.mark.usefixtures("two_runs")
def test_runs_are_laid_side_by_side(timebox: Command) -> None:
    out = timebox("compare", "runs/a", "runs/b", "--output", "c.html").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "run-1 run-2" in lines
    assert "test accuracy 50.00% 50.00%" in lines
    assert "width 8 16" in lines
    assert lines[-1] == "written c.html"


@pytest.mark.usefixtures("two_runs")
def test_json_has_the_summaries(timebox: Command) -> None:
    runs = timebox("compare", "runs/a", "runs/b", "--json").json()["runs"]
    assert [(run["run"], run["test_accuracy"]) for run in runs] == [("runs/a", 0.5), ("runs/b", 0.5)]
