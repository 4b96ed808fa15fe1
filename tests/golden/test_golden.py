"""Runs, searches and benchmarks of earlier versions are loaded, scored, exported and resumed. make.py writes them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import timebox
from budgets import within_budget
from golden.make import at_size
from timebox.benchmarking import environment
from timebox.errors import RunError
from timebox.file_versions import LR_FIND_FORMAT
from timebox.pipelines.report import read_run_data
from timebox.recipes import get_recipe, parse_recipe
from timebox.reporting.comparison_page import comparison_rows, differing_fields
from timebox.run.json_values import to_values
from timebox.run.ranks_file import read_ranks_record
from timebox.tuning import study as studies
from timebox.tuning.directory import TuneDirectory
from timebox.tuning.storage import open_storage

from .conftest import HERE, VERSIONS

NUM_VERSIONS = 2
TRAINED = (
    "airbench94", "auto", "budget", "dawnbench", "ensemble", "estimator", "grey", "haet2021", "initialised", "launched",
    "superconvergence", "tuned/final", "unscored", "without-held-out",
)  # fmt: skip
STOPPED = ("killed", "stopped", "stopped-budget")
OTHERS = ("benchmarked", "lr-find", "tuned")
TOLERANCE = 1e-5
MAX_BYTES = 560_000


def copy_of(golden: Path, name: str, place: Path) -> Path:
    return Path(shutil.copytree(golden / name, place / name))


def data_of(name: str) -> str:
    return "grey.npz" if name == "grey" else "colours.npz"


def test_the_collection_is_complete() -> None:
    assert len(VERSIONS) == NUM_VERSIONS
    for version in VERSIONS:
        names = {file.name.removesuffix(".tar.xz") for file in (HERE / version).glob("*.tar.xz")}
        assert names == {*STOPPED, *OTHERS, *(name for name in TRAINED if "/" not in name)}
        with np.load(HERE / version / "expected.npz") as expected:
            assert set(expected) == {*TRAINED, *STOPPED}
        assert sum(file.stat().st_size for file in (HERE / version).iterdir()) < MAX_BYTES


@pytest.mark.parametrize("name", [*TRAINED, *STOPPED])
def test_a_run_predicts_as_it_did(golden: Path, name: str) -> None:
    run = timebox.load(golden / name, device="cpu")
    with np.load(golden / data_of(name)) as data, np.load(golden / "expected.npz") as expected:
        probabilities = expected[name]
        images = at_size(data["test_images"][: len(probabilities)], run.preprocessing.size)
    assert len(probabilities) == 6
    np.testing.assert_allclose(run.predict_proba(images), probabilities, atol=TOLERANCE)
    assert run.class_names == (("bottom", "middle", "top") if name == "estimator" else ("top", "middle", "bottom"))


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_is_scored(golden: Path, name: str, place: Path) -> None:
    evaluation = timebox.evaluate(golden / name, data_of(name), device="cpu", cache=False)
    assert (evaluation.split, evaluation.num_images) == ("test", 24)
    if name == "airbench94":  # the only one whose weights are not rounded
        assert evaluation.accuracy == timebox.load(golden / name, device="cpu").test_accuracy
    if name == "unscored":
        assert timebox.evaluate(golden / name, data_of(name), split="val", device="cpu", cache=False).num_images == 12


@pytest.mark.parametrize("name", [*TRAINED, *STOPPED])
def test_a_run_has_a_page(golden: Path, name: str, place: Path) -> None:
    page = timebox.report(golden / name, output="page.html").read_text()
    assert "</html>" in page
    facts = read_run_data(timebox.load(golden / name, "cpu"))
    assert bool(facts.metrics) is (name != "estimator")
    assert bool(facts.predictions) is (name not in (*STOPPED, "estimator", "unscored", "without-held-out"))
    assert bool(facts.examples) is (name in ("grey", "haet2021", "tuned/final"))


def test_runs_are_compared(golden: Path, place: Path) -> None:
    compared = timebox.compare([golden / name for name in (*TRAINED, *STOPPED)], output="comparison.html")
    assert len(compared) == len(TRAINED) + len(STOPPED)
    assert {"steps", "recipe", "test accuracy"} <= {row[0] for row in comparison_rows(compared)}
    assert "ensemble_size" in {row[0] for row in differing_fields(compared)}


@pytest.mark.integration
@pytest.mark.parametrize(("name", "format"), [("auto", "onnx"), ("grey", "torch")])
def test_a_run_is_exported(golden: Path, name: str, format: str, place: Path) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime, of the extra `onnx`, is not installed")
    exported = timebox.export(golden / name, format, output=place / "model")
    assert exported.checks
    assert all(check.num_changed == 0 for check in exported.checks)


@pytest.mark.integration
@pytest.mark.parametrize(("name", "budget"), [("killed", None), ("stopped", None), ("stopped-budget", 10.0)])
def test_a_run_is_resumed(golden: Path, name: str, budget: float | None, place: Path) -> None:
    path = copy_of(golden, name, place)
    if budget is None:
        run = timebox.train(resume=path, cache=False)
    else:
        run, _ = within_budget(lambda seconds: timebox.train(resume=path, budget=seconds, cache=False), budget)
    assert int(str(run.summary["resumed_at_step"])) in range(1, 9)
    assert run.summary["late"] is False
    assert not (path / "checkpoint").exists()
    if budget is None:
        assert run.summary["steps"] == 12


@pytest.mark.integration
def test_a_run_is_replayed_where_it_can_be(golden: Path, place: Path) -> None:
    path = copy_of(golden, "airbench94", place)
    try:
        run = timebox.train(replay=path, out=place / "again", cache=False)
    except RunError as error:
        assert "cannot be repeated here: " in str(error)
    else:
        assert run.summary["steps"] == 12
        assert isinstance(run.summary["identical"], bool)


@pytest.mark.integration
def test_a_training_begins_with_a_run(golden: Path, place: Path) -> None:
    run = timebox.train(
        "colours.npz", init=golden / "auto", steps=1, settings=("batch_size=16",), device="cpu", cache=False, out="run"
    )
    assert run.recipe.width == 4
    assert run.summary["steps"] == 1


def test_a_classifier_is_loaded(golden: Path, place: Path) -> None:
    classifier = timebox.TimeboxClassifier.load(golden / "estimator", device="cpu")
    with np.load("colours.npz") as data:
        assert set(classifier.predict(data["test_images"])) <= {"top", "middle", "bottom"}
    assert classifier.steps == 12


def test_a_finished_search_says_so(golden: Path, place: Path) -> None:
    path = copy_of(golden, "tuned", place)
    with pytest.raises(RunError) as caught:
        timebox.tune(resume=path)
    assert str(caught.value) == (
        f"search {str(path)!r} is finished: to go on with it, give a longer budget for all of it"
    )


def test_a_search_is_read(golden: Path, place: Path) -> None:
    path = copy_of(golden, "tuned", place)
    directory = TuneDirectory.existing(path)
    directory.close()
    assert directory.config.study == "golden"
    assert directory.seconds_before > 0
    assert directory.repeats
    storage = open_storage(str(path / "journal.log"))
    assert studies.adopt_version(storage, "golden") == golden.name
    study, search = studies.load(storage, "golden")
    assert search.rungs[-1] == 5.0
    assert len(studies.best_trials(study)) > 1


@pytest.mark.integration
def test_the_best_recipe_of_a_search_is_trained(golden: Path, place: Path) -> None:
    best = str(golden / "tuned" / "best.toml")
    assert parse_recipe(best).base.width == 4
    run = timebox.train("colours.npz", recipe=best, steps=1, device="cpu", cache=False, out="run")
    assert run.recipe == get_recipe(best)


@pytest.mark.integration
def test_a_finished_benchmark_runs_no_trial(golden: Path, place: Path) -> None:
    path = copy_of(golden, "benchmarked", place)
    about = json.loads((path / "benchmark.json").read_text())
    about["environment"] = to_values(environment.environment(torch.device("cpu")))
    (path / "benchmark.json").write_text(json.dumps(about))
    lines: list[str] = []
    done = timebox.benchmark(resume=path, notify=lines.append)
    assert lines[-1].startswith("4 trials of 12s, 4 of them done before: ")
    before = json.loads((golden / "benchmarked" / "summary.json").read_text())
    for key in ("recipes", "comparisons", "num_done"):
        assert json.loads(json.dumps(done.summary[key])) == before[key]
    for recipe in ("airbench94", "airbench94-max_lr=100"):
        assert get_recipe(str(path / "recipes" / f"{recipe}.toml")).width == 4


def test_a_range_test_is_read(golden: Path) -> None:
    values = json.loads((golden / "lr-find" / "lr_find.json").read_text())
    assert len(LR_FIND_FORMAT.upgraded(values, "lr_find.json")["lr"]) >= 20  # type: ignore[arg-type]


def test_the_ranks_of_a_run_are_read(golden: Path) -> None:
    record = read_ranks_record(golden / "launched")
    assert record is not None
    assert [rank.rank for rank in record.ranks] == [0, 1]
