"""Files of older formats are migrated, those of newer ones refused in one line that says what to do."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

import timebox
from timebox.benchmarking.directory import BenchmarkDirectory
from timebox.benchmarking.trials import ScoredTrial
from timebox.errors import RunError, UsageError
from timebox.file_versions import (
    BENCHMARK_FORMAT,
    BENCHMARK_SUMMARY_FORMAT,
    BENCHMARK_TRIAL_FORMAT,
    CHECKPOINT_FORMAT,
    DIAGNOSIS_FORMAT,
    ESTIMATOR_FORMAT,
    EXAMPLES_FORMAT,
    FORMATS,
    LR_FIND_FORMAT,
    METRICS_FORMAT,
    MODEL_FORMAT,
    PREDICTIONS_FORMAT,
    RANKS_FORMAT,
    STATUS_FORMAT,
    SUMMARY_FORMAT,
    SUSPECTS_FORMAT,
    THUMBNAILS_FORMAT,
    TUNE_CLOCK_FORMAT,
    TUNE_FORMAT,
    TUNE_STUDY_FORMAT,
    TUNE_SUMMARY_FORMAT,
    TUNE_TRIAL_FORMAT,
    FileFormat,
    Values,
)
from timebox.pipelines.report import read_run_data
from timebox.recipes import builtin, get_recipe, parse_recipe, recipe, upgrade_fields
from timebox.recipes.recipe import FIELDS, Field, Recipe
from timebox.run import Run
from timebox.run.checkpoint import read_checkpoint
from timebox.run.directories.locks import lock_folder
from timebox.run.metrics_log import downsampled_metrics, read_metrics
from timebox.run.ranks_file import read_ranks_record
from timebox.run.writer import RunWriter
from timebox.serving.watching.watcher import read_status
from timebox.tuning import study as studies
from timebox.tuning.directory import TuneDirectory
from timebox.tuning.storage import open_storage

from .test_golden import OTHERS, STOPPED, TRAINED, copy_of

NEWER = 9


def json_file(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": NEWER}))


def json_lines(path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**line, "format": NEWER}) + "\n" for line in lines))


def arrays(path: Path) -> None:
    with np.load(path) as file:
        columns = dict(file)
    np.savez(path, **{**columns, "format": np.array(NEWER)})


def journal(path: Path) -> None:
    before = '"user_attr":{"timebox":{'
    path.write_text(re.sub(f'{before}("format":[0-9]+,)?', f'{before}"format":{NEWER},', path.read_text()))


def page(path: Path) -> object:
    return read_run_data(Run(path, "cpu"))


def checkpoint(path: Path) -> object:
    return read_checkpoint(path / "checkpoint")


def search(path: Path) -> object:
    directory = TuneDirectory.existing(path)
    directory.close()
    return directory.is_finished


def benchmark(path: Path) -> BenchmarkDirectory:
    directory = BenchmarkDirectory.existing(path)
    directory.close()
    return directory


def study(path: Path) -> object:
    storage = open_storage(str(path / "journal.log"))
    studies.adopt_version(storage, "golden")  # as a search that is resumed does, whatever version began it
    return studies.load(storage, "golden")


def status(path: Path) -> object:
    return read_status(path)


# Each file that is read: its format, golden directory and name, the function that raises its format, and its reader.
READ: tuple[tuple[FileFormat, str, str, Callable[[Path], None], Callable[[Path], object]], ...] = (
    (MODEL_FORMAT, "auto", "model.json", json_file, lambda path: Run(path, "cpu")),
    (SUMMARY_FORMAT, "auto", "summary.json", json_file, lambda path: Run(path, "cpu").summary),
    (METRICS_FORMAT, "auto", "metrics.jsonl", json_lines, page),
    (PREDICTIONS_FORMAT, "auto", "predictions.npz", arrays, page),
    (EXAMPLES_FORMAT, "grey", "examples.npz", arrays, page),
    (SUSPECTS_FORMAT, "haet2021", "suspects.npz", arrays, lambda path: Run(path, "cpu").suspects()),
    (THUMBNAILS_FORMAT, "grey", "thumbnails.npz", arrays, page),
    (STATUS_FORMAT, "killed", "status.json", json_file, status),
    (RANKS_FORMAT, "launched", "group.json", json_file, read_ranks_record),
    (CHECKPOINT_FORMAT, "killed", "checkpoint/manifest.json", json_file, checkpoint),
    (ESTIMATOR_FORMAT, "estimator", "estimator.json", json_file, timebox.TimeboxClassifier.load),
    (TUNE_FORMAT, "tuned", "tune.json", json_file, search),
    (TUNE_CLOCK_FORMAT, "tuned", "clock.json", json_file, search),
    (TUNE_TRIAL_FORMAT, "tuned", "trials.jsonl", json_lines, search),
    (TUNE_SUMMARY_FORMAT, "tuned", "summary.json", json_file, search),
    (TUNE_STUDY_FORMAT, "tuned", "journal.log", journal, study),
    (BENCHMARK_FORMAT, "benchmarked", "benchmark.json", json_file, benchmark),
    (BENCHMARK_TRIAL_FORMAT, "benchmarked", "trials.jsonl", json_lines, benchmark),
)
NEW_IN_0_2 = (SUSPECTS_FORMAT, STATUS_FORMAT, THUMBNAILS_FORMAT)
WRITTEN_ONLY = (LR_FIND_FORMAT, BENCHMARK_SUMMARY_FORMAT, DIAGNOSIS_FORMAT)
# Messages that name more than the file, or something else.
NAMED = {TUNE_STUDY_FORMAT: "study 'golden'", BENCHMARK_TRIAL_FORMAT: "line 1 of {file!r}"}


def test_every_kind_of_file_is_covered() -> None:
    assert len(FORMATS) == len(set(FORMATS)) == 21
    assert {*(kind[0] for kind in READ), *WRITTEN_ONLY} == set(FORMATS)
    assert len(READ) == 18


@pytest.mark.parametrize(
    ("file_format", "name", "file", "raise_format", "read"), READ, ids=[kind[0].file for kind in READ]
)
def test_a_newer_format_is_refused(
    golden: Path,
    place: Path,
    file_format: FileFormat,
    name: str,
    file: str,
    raise_format: Callable[[Path], None],
    read: Callable[[Path], object],
) -> None:
    if file_format in NEW_IN_0_2 and golden.name == "0.1.0":
        pytest.skip("that version wrote no such file")
    path = copy_of(golden, name, place)
    read(path)
    raise_format(path / file)
    with pytest.raises(RunError) as caught:
        read(path)
    where = NAMED.get(file_format, "{file!r}").format(file=str(path / file))
    assert str(caught.value) == (
        f"{where} has format 9; this version of timebox reads formats up to {file_format.newest}: "
        "install a newer timebox-vision"
    )


def test_a_newer_format_is_reported_before_other_damage(golden: Path, place: Path) -> None:
    path = copy_of(golden, "auto", place)
    config = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({"format": 9, "recipe": {**config["recipe"], "novel": 1}}))
    with pytest.raises(RunError, match=r"has format 9; .* install a newer timebox-vision"):
        Run(path)


def test_an_unknown_recipe_field_is_damage(golden: Path, place: Path) -> None:
    path = copy_of(golden, "auto", place)
    config = json.loads((path / "model.json").read_text())
    (path / "model.json").write_text(json.dumps({**config, "recipe": {**config["recipe"], "novel": 1}}))
    with pytest.raises(RunError) as caught:
        Run(path)
    assert str(caught.value) == (
        f"{str(path / 'model.json')!r} is damaged: recipe 'auto': unknown field 'novel', did you mean 'model'?"
    )


def test_a_run_is_migrated_and_saved_in_the_newest_format(
    golden: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def multiply_seed(values: Values) -> Values:
        return {**values, "seed": 10 * int(str(values["seed"])) + 1}

    monkeypatch.setattr(MODEL_FORMAT, "steps", (*MODEL_FORMAT.steps, multiply_seed))
    monkeypatch.setattr(SUMMARY_FORMAT, "steps", (*SUMMARY_FORMAT.steps, *[multiply_seed] * 2))
    run = timebox.load(golden / "auto", device="cpu")
    assert (run.config["format"], run.config["seed"]) == (6, 1)
    assert (run.summary["format"], run.summary["seed"]) == (4, 11)
    run.save(place)
    again = timebox.load(place, device="cpu")
    assert (again.config["format"], again.config["seed"]) == (6, 1)
    assert (again.summary["format"], again.summary["seed"]) == (4, 11)


def test_a_format_line_holds_for_the_lines_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS_FORMAT, "steps", (lambda values: {**values, "loss": 2 * values["loss"]},))
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"format": 1}\n{"loss": 1.0, "step": 1}\n{"format": 2}\n{"loss": 3.0, "step": 2}\n')
    assert [entry for _, entry in read_metrics(path)] == [{}, {"loss": 2.0, "step": 1}, {}, {"loss": 3.0, "step": 2}]
    assert downsampled_metrics(path) == [{"loss": 2.0, "step": 1}, {"loss": 3.0, "step": 2}]


@pytest.mark.parametrize(("kept", "writes_line"), [(1, True), (3, False)])
def test_a_resumed_run_writes_a_format_line_where_the_format_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int, writes_line: bool
) -> None:
    monkeypatch.setattr(METRICS_FORMAT, "steps", (lambda values: values,))
    path = tmp_path / "metrics.jsonl"
    lines = '{"loss": 1.0, "step": 1}\n', '{"format": 2}\n', '{"loss": 3.0, "step": 2}\n'
    path.write_text("".join(lines))
    writer = RunWriter.resumed(lock_folder(tmp_path), num_lines=kept, step=kept)
    writer.metrics.flush()
    writer.metrics.close()
    assert path.read_text() == "".join([*lines[:kept], *['{"format": 2}\n'] * writes_line])
    assert writer.metrics.num_lines == kept + writes_line


NOVEL = Field("what is new", 0, 1, legacy_value=0.25)


@dataclass(frozen=True, kw_only=True)
class NewerRecipe(Recipe):
    """The recipe of a newer version, with one field more."""

    novel: Annotated[float, NOVEL] = 0.75  # the value in the built-in recipes


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This version, with one field more in its recipes."""
    for module in (recipe, builtin):
        monkeypatch.setattr(module, "Recipe", NewerRecipe)
    monkeypatch.setitem(recipe.FIELDS, "novel", NOVEL)
    monkeypatch.setitem(recipe._TYPES, "novel", float)


@pytest.mark.usefixtures("newer")
def test_a_new_field_has_its_former_value_in_older_runs(golden: Path, place: Path) -> None:
    for name in (*TRAINED, *STOPPED):
        run = timebox.load(golden / name, device="cpu")
        assert run.recipe.as_dict()["novel"] == 0.25
        recorded = run.summary.get("recipe")
        assert recorded is None or recorded == run.recipe.as_dict()
    assert timebox.evaluate(golden / "auto", "colours.npz", device="cpu", cache=False).num_images == 24
    trials = benchmark(copy_of(golden, "benchmarked", place)).trials
    resolved = [trial.recipe for trial in trials if isinstance(trial, ScoredTrial)]
    assert [present["novel"] for present in resolved] == [0.25] * 4
    for file in (golden / "tuned" / "best.toml", *(golden / "benchmarked" / "recipes").iterdir()):
        assert get_recipe(str(file)).as_dict()["novel"] == 0.25


@pytest.mark.integration
@pytest.mark.usefixtures("newer")
def test_an_older_run_is_resumed_with_a_new_field(golden: Path, place: Path) -> None:
    run = timebox.train(resume=copy_of(golden, "killed", place), cache=False)
    assert (run.summary["steps"], run.recipe.as_dict()["novel"]) == (12, 0.25)


def test_a_field_that_was_renamed_is_read_by_its_former_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    former = FIELDS["mixup"]
    monkeypatch.delitem(recipe.FIELDS, "mixup")
    monkeypatch.setitem(recipe.FIELDS, "mixup_share", Field(former.description, 0, 1, former_name="mixup"))
    monkeypatch.setitem(recipe._TYPES, "mixup_share", float)
    upgraded = upgrade_fields({"mixup": 0.5, "width": 4})
    assert {"mixup_share": 0.5, "width": 4}.items() <= upgraded.items()
    assert "mixup" not in upgraded
    file = tmp_path / "best.toml"
    file.write_text('extends = "auto"\nmixup = "x0.5"\n')
    changes = parse_recipe(str(file), ["mixup=x0.5"]).overrides
    assert {name: str(change) for name, change in changes.items()} == {"name": "best", "mixup_share": "x0.25"}


def undeclared(known: set[str]) -> list[str]:
    """Fields of which nothing says what they amount to in recipes with the fields known alone."""
    return [name for name in recipe.FIELDS if name not in upgrade_fields(dict.fromkeys(known, 0))]


def test_every_field_declares_its_former_value(golden: Path) -> None:
    config = json.loads((golden / "auto" / "model.json").read_text())
    assert len(config["recipe"]) >= 38
    missing = undeclared(set(config["recipe"]))
    assert not missing, (
        f"runs of timebox {golden.name} lack the recipe fields {missing}: declare each with "
        "Field(…, legacy_value=VALUE), where VALUE is what recipes amounted to without it, "
        "or former_name=NAME where it was only renamed"
    )
    if config["format"] == MODEL_FORMAT.newest:
        assert set(FIELDS) == set(config["recipe"]), (
            "the fields of recipes have changed: raise the format of model.json, and of the other files with recipes, "
            "as docs/reference/run-format.md says"
        )


def test_an_undeclared_field_is_detected(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipe.FIELDS, "novel", Field("what is new", 0, 1))
    config = json.loads((golden / "auto" / "model.json").read_text())
    assert undeclared(set(config["recipe"])) == ["novel"]


def test_a_recipe_file_must_have_the_fields_of_the_first_version(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    whole = get_recipe("haet2021").to_toml()
    file.write_text("".join(line for line in whole.splitlines(keepends=True) if not line.startswith("mixup ")))
    with pytest.raises(UsageError, match="recipe 'haet2021': missing: mixup"):
        get_recipe(str(file))


def test_the_collection_covers_all_files(golden: Path) -> None:
    folders = (*TRAINED, *STOPPED, *OTHERS)
    names = {file.name for name in folders for file in (golden / name).rglob("*") if file.is_file()}
    is_old = golden.name == "0.1.0"
    assert {kind[2].split("/")[-1] for kind in READ if not (is_old and kind[0] in NEW_IN_0_2)} <= names
    assert {"trained_on.npy", "classes.npy", "model.safetensors", "report.html", "best.toml", "tune.html"} <= names
