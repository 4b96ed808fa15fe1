"""Results of a run as data and as text: predictions, mistakes, metrics by step, ``repr`` and the notebook's table."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cut_runs import cut
from small_runs import CLASSES, SMALL, coloured, quick, refusal, save_npz
from timebox.errors import ArgumentError, UsageError
from timebox.pipelines import train
from timebox.run import Run
from timebox.run.results import predictions as saved_predictions
from timebox.run.results.html import MAX_LENGTH
from timebox.run.results.table import to_table

COLUMNS = ["file", "label", "predicted", "probability", "loss"]
METRICS = [
    "step", "epoch", "progress", "lr", "momentum", "loss", "resolution", "micro_batch", "threads", "val_accuracy",
]  # fmt: skip
ODD_NAMES = ("<script>alert(1)</script>", 'a & "b"\n$x$', "\u202edrib")
Columns = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that has seen few images, and is often wrong: 40 validation and 30 test images."""
    folder = tmp_path_factory.mktemp("results")
    return quick(save_npz(folder / "colours.npz", num_val=40, num_test=30), folder / "run", steps=3)


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path, tmp_path / "run"))


@pytest.fixture
def without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)


def saved_columns(run: Path) -> Columns:
    with np.load(run / "predictions.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def rewrite(run: Path, **changes: object) -> Run:
    """Replace columns of a run's predictions.npz; None removes one."""
    columns = {**saved_columns(run), **changes}
    kept = {name: np.asarray(column) for name, column in columns.items() if column is not None}
    np.savez(run / "predictions.npz", **kept)
    return Run(run, "cpu")


def edit(file: Path, **changes: object) -> None:
    """Replace values of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def as_lists(table: Any) -> dict[str, list[Any]]:
    return {name: list(table[name]) for name in table}


# Predictions


@pytest.mark.usefixtures("without_pandas")
@pytest.mark.parametrize("split", ["test", "val"])
def test_predictions_are_those_of_the_file_calibrated(run: Run, split: str) -> None:
    table, saved = run.predictions(split), saved_columns(run.path)
    rows = saved["split"] == split
    labels = saved["label"][rows]
    assert run.temperature != 1
    scaled = saved["probabilities"][rows].astype(np.float64) ** (1 / run.temperature)
    scaled /= scaled.sum(1, keepdims=True)
    assert type(table) is dict
    assert list(table) == COLUMNS
    assert table["file"].tolist() == saved["id"][rows].tolist()
    assert table["label"].tolist() == [CLASSES[label] for label in labels]
    assert table["predicted"].tolist() == [CLASSES[index] for index in scaled.argmax(1)]
    np.testing.assert_allclose(table["probability"], scaled.max(1), atol=1e-6)
    np.testing.assert_allclose(table["loss"], -np.log(scaled[np.arange(len(labels)), labels]), atol=1e-5)
    accuracy = run.test_accuracy if split == "test" else run.val_accuracy
    assert np.mean(table["label"] == table["predicted"]) == pytest.approx(accuracy)
    dtypes = {name: column.dtype for name, column in table.items()}
    assert dtypes == {**dict.fromkeys(COLUMNS[:3], np.dtype(object)), "probability": np.float32, "loss": np.float64}


@pytest.mark.usefixtures("without_pandas")
def test_predictions_are_what_predict_says_of_the_images(run: Run) -> None:
    table = run.predictions()
    images, labels = coloured(30, seed=2)
    order = [int(position) for position in table["file"]]
    assert sorted(order) == list(range(30))
    probabilities = run.predict_proba(images[order])
    assert table["predicted"].tolist() == run.predict(images[order])
    np.testing.assert_allclose(table["probability"], probabilities.max(1), atol=1e-5)
    np.testing.assert_allclose(table["loss"], -np.log(probabilities[np.arange(30), labels[order]]), atol=1e-4)


@pytest.mark.usefixtures("without_pandas")
def test_all_splits_have_a_column_that_names_them(run: Run) -> None:
    both = run.predictions("all")
    assert list(both) == ["split", *COLUMNS]
    for split, num in (("test", 30), ("val", 40)):
        rows = both["split"] == split
        assert rows.sum() == num
        assert {name: both[name][rows].tolist() for name in COLUMNS} == as_lists(run.predictions(split))
    assert as_lists(run.predictions(split="test")) == as_lists(run.predictions())


@pytest.mark.usefixtures("without_pandas")
def test_mistakes_are_the_wrong_predictions_most_confident_first(run: Run) -> None:
    for split in ("test", "val", "all"):
        everything, mistakes = run.predictions(split), run.mistakes(split)
        assert list(mistakes) == list(everything)
        wrong = everything["label"] != everything["predicted"]
        assert 0 < wrong.sum() < len(wrong)
        assert sorted(mistakes["probability"], reverse=True) == mistakes["probability"].tolist()
        order = np.argsort(-everything["probability"][wrong], kind="stable")
        assert as_lists(mistakes) == {name: everything[name][wrong][order].tolist() for name in everything}


@pytest.mark.usefixtures("without_pandas")
def test_a_run_without_a_mistake_has_an_empty_table(copied: Path) -> None:
    right = np.eye(3, dtype=np.float32)[saved_columns(copied)["label"]]
    run = rewrite(copied, probabilities=right)
    mistakes, predictions = run.mistakes(), run.predictions()
    assert {name: (len(column), column.dtype) for name, column in mistakes.items()} == {
        name: (0, column.dtype) for name, column in predictions.items()
    }
    assert (predictions["loss"] == 0).all()
    assert not np.signbit(predictions["loss"]).any(), "0, and not -0"
    assert "<p>No mistake on 30 test images.</p>" in run._repr_html_()


@pytest.mark.usefixtures("without_pandas")
def test_a_label_that_the_model_rules_out_has_a_finite_loss(copied: Path) -> None:
    labels = saved_columns(copied)["label"]
    run = rewrite(copied, probabilities=np.eye(3, dtype=np.float32)[(labels + 1) % 3])
    edit(copied / "summary.json", temperature=0.25)
    run = Run(copied, "cpu")
    np.testing.assert_allclose(run.predictions()["loss"], -np.log(1e-12), rtol=1e-6)
    assert len(run.mistakes()["file"]) == 30


@pytest.mark.usefixtures("without_pandas")
def test_many_classes_are_calibrated_in_chunks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = as_lists(run.predictions("all"))
    for num_probabilities in (1, 7, 3 * 70):
        monkeypatch.setattr(saved_predictions, "CHUNK_PROBABILITIES", num_probabilities)
        assert as_lists(run.predictions("all")) == whole


@pytest.mark.usefixtures("without_pandas")
def test_no_network_is_loaded(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    run = Run(copied, "cpu")
    assert len(run.predictions()["file"]) == 30
    assert len(run.mistakes()["file"])
    assert len(run.metrics["step"]) == 3
    assert "test accuracy" in repr(run)
    assert "Most confident mistakes on the test images:" in run._repr_html_()
    assert "model" not in vars(run)


# pandas


def test_data_frames_where_pandas_is_installed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frames = [run.predictions("all"), run.mistakes(), run.metrics]
    assert all(isinstance(frame, pandas.DataFrame) for frame in frames)
    assert [list(frame.index[:3]) for frame in frames] == [[0, 1, 2]] * 3
    assert frames[0].groupby("split").size().to_dict() == {"test": 30, "val": 40}
    assert [str(frames[0][name].dtype) for name in COLUMNS] == ["object"] * 3 + ["float32", "float64"]
    assert (frames[1].label != frames[1].predicted).all()
    assert frames[2].loss.notna().all()
    monkeypatch.setitem(sys.modules, "pandas", None)
    arrays = [run.predictions("all"), run.mistakes(), run.metrics]
    for frame, columns in zip(frames, arrays, strict=True):
        assert list(frame) == list(columns)
        for name, column in columns.items():
            assert frame[name].dtype == column.dtype
            np.testing.assert_array_equal(frame[name].to_numpy(), column)


def test_names_that_are_no_utf_8_fit_into_a_data_frame() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    names = np.array(["a\udcff.png", "b\0"], object)
    table = to_table({"file": names, "empty": np.zeros(2)})
    assert table["file"].tolist() == names.tolist()
    assert len(to_table({"file": names[:0]})) == 0


def test_pandas_gets_the_dtype_of_each_column(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it pandas infers a text type."""
    pandas = ModuleType("pandas")
    vars(pandas).update(Series=lambda column, dtype: (column, dtype), DataFrame=lambda columns: ("frame", columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    kind, columns = run.mistakes()
    assert kind == "frame"
    assert [dtype for _, dtype in columns.values()] == [np.dtype(object)] * 3 + [np.float32, np.float64]


def test_arrays_where_pandas_was_built_for_another_numpy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ValueError("numpy.dtype size changed, may indicate binary incompatibility")

    monkeypatch.setattr("timebox.run.results.table.import_module", fail)
    assert type(run.predictions()) is dict


# Runs without such predictions


def test_an_unknown_split_is_refused(run: Run) -> None:
    for split in ("train", "validation", None, ["test"]):
        assert refusal(lambda split=split: run.predictions(split), UsageError) == (  # type: ignore[misc]
            f"split {split!r} must be one of test, val, all"
        )
    assert refusal(lambda: run.mistakes("x"), UsageError) == "split 'x' must be one of test, val, all"
    assert refusal(lambda: run.predictions(subset="val"), ArgumentError) == (  # type: ignore[call-arg]
        "timebox.Run.predictions has no argument 'subset'; did you mean 'split'?"
    )


@pytest.mark.usefixtures("without_pandas")
def test_a_split_without_rows_is_refused_and_the_others_are_named(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run")
    for call in (run.predictions, run.mistakes):
        assert refusal(call) == (
            f"run {str(run.path)!r} has predictions of 'val' only, none of 'test'; use split=\"val\""
        )
    assert len(run.predictions("all")["file"]) == len(run.predictions("val")["file"]) == 15
    assert repr(run).startswith(f"Run({str(run.path)!r}: validation accuracy ")
    assert "validation images" in run._repr_html_()


AGAIN = "predict images with run.predict_proba, or score them with timebox.evaluate"


def test_a_run_trained_without_scoring(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", test=24 / 150, scoring=False)
    words = f"run {str(run.path)!r} has no saved predictions: it was trained with scoring=False; {AGAIN}"
    for split in ("test", "val", "all"):
        assert refusal(lambda split=split: run.predictions(split)) == words  # type: ignore[misc]
    assert refusal(run.mistakes) == words
    assert re.fullmatch(r"Run\(.*: not scored, 3 classes, trained in [\d.]+s, 6 steps\)", repr(run))
    page = run._repr_html_()
    assert "not scored" in page
    assert "mistake" not in page.lower()


def test_a_run_that_was_stopped(data: Path, tmp_path: Path) -> None:
    run = cut(8, KeyboardInterrupt, quick, data, tmp_path / "run", steps=12)
    assert refusal(run.predictions) == (
        f"run {str(run.path)!r} has no saved predictions: it was stopped before its images were scored; "
        f'timebox.train(resume="{run.path}") goes on with it'
    )
    assert re.fullmatch(r"Run\(.*: 3 classes, stopped( after [\d.]+s)? before it was scored\)", repr(run))
    assert "before it was scored" in run._repr_html_()
    resumed = train(resume=run.path)
    assert len(resumed.predictions("val")["file"]) == 15


def test_a_run_that_was_killed(copied: Path) -> None:
    for name in ("summary.json", "predictions.npz"):
        (copied / name).unlink()
    run = Run(copied, "cpu")
    assert "it ended before its images were scored, or is still being trained" in refusal(run.predictions)
    assert repr(run) == f"Run({str(copied)!r}: 3 classes, unfinished: without summary.json)"
    assert "unfinished: without summary.json" in run._repr_html_()
    (copied / "model.safetensors").unlink()
    assert len(run.metrics["step"]) == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "predictions.npz could not be written, or was removed"),
        ({"events": ["a rollback", "predictions.npz left out: 0.1s left"]}, "predictions.npz left out: 0.1s left"),
        ({"val_images": 0, "test_images": 0}, "there was no time to score its images"),
        (
            {"val_images": 0, "test_images": 0, "val_images_total": 0, "test_images_total": 0},
            "it has no test and no validation images",
        ),
    ],
)
def test_a_finished_run_without_predictions_says_why(copied: Path, changes: dict[str, object], reason: str) -> None:
    (copied / "predictions.npz").unlink()
    edit(copied / "summary.json", **changes)
    words = f"run {str(copied)!r} has no saved predictions: {reason}; {AGAIN}"
    assert refusal(Run(copied, "cpu").predictions) == words
    assert "Most confident" not in Run(copied, "cpu")._repr_html_()


def test_a_file_without_a_row(copied: Path) -> None:
    """As np.savez writes a list of no names: as numbers."""
    empty = {"split": np.array([], "U4"), "id": np.array([]), "label": np.zeros(0, np.int64)}
    run = rewrite(copied, **empty, probabilities=np.zeros((0, 3), np.float32))
    edit(copied / "summary.json", val_images=0, test_images=0, val_accuracy=None, test_accuracy=None)
    for split in ("test", "all"):
        words = refusal(lambda split=split: run.predictions(split))  # type: ignore[misc]
        assert words.endswith(f"has no saved predictions: there was no time to score its images; {AGAIN}")
    assert "not scored" in repr(Run(copied, "cpu"))
    assert "mistake" not in run._repr_html_().lower()


# Damaged files

DAMAGED: dict[str, tuple[dict[str, object], str]] = {
    "no split": ({"split": None}, "it lacks the column 'split'"),
    "no id": ({"id": None}, "it lacks the column 'id'"),
    "no probabilities": ({"probabilities": None}, "it lacks the column 'probabilities'"),
    "few labels": ({"label": np.zeros(3, np.int64)}, "its columns are not of one length"),
    "one number": ({"label": np.int64(3)}, "its columns are not of one length"),
    "a table of ids": ({"id": np.full((70, 1), "a")}, "its columns are not of one length"),
    "numbers as ids": ({"id": np.arange(70)}, "its splits or names of images are no texts"),
    "bytes as splits": ({"split": np.full(70, b"test")}, "its splits or names of images are no texts"),
    "another split": ({"split": np.full(70, "train")}, "it holds splits other than test and val"),
    "labels of no class": ({"label": np.full(70, 3)}, "it holds labels outside 0...2"),
    "negative labels": ({"label": np.full(70, -1)}, "it holds labels outside 0...2"),
    "labels as fractions": ({"label": np.zeros(70)}, "it holds labels outside 0...2"),
    "many classes": ({"probabilities": np.full((70, 4), 0.25, np.float32)}, "it holds no probabilities of 3 classes"),
    "no shares": ({"probabilities": np.ones((70, 3), np.float32)}, "it holds probabilities below 0, or rows that"),
    "NaN": ({"probabilities": np.full((70, 3), np.nan, np.float32)}, "it holds probabilities below 0, or rows that"),
    "texts": ({"probabilities": np.full((70, 3), "a")}, "it holds probabilities below 0, or rows that"),
    "double precision": ({"probabilities": np.full((70, 3), 1 / 3)}, "it holds probabilities below 0, or rows that"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_predictions_are_refused_by_name(copied: Path, name: str) -> None:
    changes, reason = DAMAGED[name]
    run = rewrite(copied, **changes)
    for call in (run.predictions, run.mistakes):
        message = refusal(call)
        assert message.startswith(f"{str(copied / 'predictions.npz')!r} is damaged: {reason}")
    assert "test accuracy" in repr(run)
    assert "No mistakes are shown: " in run._repr_html_()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK"),
        lambda path: os.truncate(path, path.stat().st_size // 2),
        lambda path: np.savez(path, id=np.array([{}, 1], object)),
        lambda path: np.savez(path, format=np.array(99)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
    ],
    ids=["nothing", "two bytes", "its first half", "pickles", "a later format", "a directory", "a pipe", "a link"],
)
def test_files_that_cannot_be_read_are_named(copied: Path, damage: Callable[[Path], object]) -> None:
    damage(copied / "predictions.npz")
    run = Run(copied, "cpu")
    for call in (run.predictions, run.mistakes):
        assert str(copied / "predictions.npz") in refusal(call)
    assert "predictions.npz" in run._repr_html_()


def test_a_damaged_summary_is_named_and_repr_works(copied: Path) -> None:
    (copied / "summary.json").write_text("{")
    run = Run(copied, "cpu")
    assert repr(run) == f"Run({str(copied)!r}: its summary.json cannot be read, 3 classes)"
    assert "summary.json&#39; cannot be read" in run._repr_html_()
    assert "summary.json" in refusal(run.predictions)


# Metrics by step


@pytest.mark.usefixtures("without_pandas")
def test_metrics_are_the_lines_of_the_file(trained: Run) -> None:
    lines = [json.loads(line) for line in (trained.path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    table = trained.metrics
    assert type(table) is dict
    assert list(table) == METRICS
    assert len(steps) == 40
    for name in METRICS[:-2]:
        assert table[name].tolist() == [line[name] for line in steps], name
    assert table["step"].dtype == np.int64
    assert {table[name].dtype for name in METRICS[1:]} == {np.dtype(np.float64)}
    assert np.isnan(table["threads"]).all()
    measured = {line["step"]: line["val_accuracy"] for line in lines if "val_accuracy" in line}
    has_one = ~np.isnan(table["val_accuracy"])
    assert dict(zip(table["step"][has_one].tolist(), table["val_accuracy"][has_one].tolist(), strict=True)) == measured


def step(number: int, loss: float | None = 1.5, **more: object) -> dict[str, object]:
    settings = {"progress": 0.5, "lr": 0.1, "momentum": 0.9, "micro_batch": 8, "resolution": 16}
    return {"step": number, "epoch": number / 2, **settings, "loss": loss, **more}


def write_lines(run: Path, *lines: dict[str, object], end: str = "") -> Run:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + end)
    return Run(run, "cpu")


@pytest.mark.usefixtures("without_pandas")
def test_steps_that_a_rollback_undid_are_left_out_and_missing_values_are_nan(copied: Path) -> None:
    run = write_lines(
        copied,
        {"format": 1},
        {"step": 0, "progress": 0.0, "val_accuracy": 0.25},
        step(1, 3.0, threads=2),
        step(2, 2.0),
        {"step": 2, "progress": 0.5, "val_accuracy": 0.5},
        step(3, None),
        {"step": 3, "progress": 0.75, "val_accuracy": 0.125},
        step(4, 9.0),
        {"step": 2, "rolled_back": True},
        {"format": 1},
        step(3, None, unknown="later"),
        {"step": 3, "aborted": True},
        end='{"step": 4, "lo',
    )
    table = run.metrics
    assert table["step"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(table["loss"], [np.nan, 3.0, 2.0, np.nan])
    np.testing.assert_array_equal(table["val_accuracy"], [0.25, np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(table["threads"], [np.nan, 2, np.nan, np.nan])
    np.testing.assert_array_equal(table["progress"], [0, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(table["lr"], [np.nan, 0.1, 0.1, 0.1])


@pytest.mark.usefixtures("without_pandas")
def test_a_training_before_its_first_step_has_no_rows(copied: Path) -> None:
    table = write_lines(copied, {"format": 1}).metrics
    assert {name: len(column) for name, column in table.items()} == dict.fromkeys(METRICS, 0)


@pytest.mark.parametrize(
    "line",
    [
        {**step(1), "lr": "fast"},
        {**step(1), "step": -1},
        {"loss": 1.5},
        {"step": 1, "progress": 0.5, "val_accuracy": 3},
        {"step": "x", "rolled_back": True},
        {"format": 99},
    ],
)
def test_damaged_metrics_are_refused_by_name(copied: Path, line: dict[str, object]) -> None:
    run = write_lines(copied, line)
    assert str(copied / "metrics.jsonl") in refusal(lambda: run.metrics)


def test_a_run_without_metrics(copied: Path) -> None:
    (copied / "metrics.jsonl").unlink()
    run = Run(copied, "cpu")
    assert refusal(lambda: run.metrics) == (
        f"run {str(copied)!r} has no metrics.jsonl: it was saved without the metrics of its training"
    )
    (copied / "metrics.jsonl").write_text("[]\n")
    assert "metrics.jsonl' cannot be read" in refusal(lambda: run.metrics)


# Text and HTML

FACTS: tuple[tuple[dict[str, object], str], ...] = (
    ({}, "test accuracy 93.1 % of 420 images, 3 classes, trained in 57s of 1m"),
    ({"late": True}, "test accuracy 93.1 % of 420 images, 3 classes, trained in 57s of 1m, late"),
    (
        {"test_images_total": 1000},
        "test accuracy 93.1 % of 420 images (1,000 in the split), 3 classes, trained in 57s of 1m",
    ),
    ({"test_accuracy": None}, "validation accuracy 91.0 % of 200 images, 3 classes, trained in 57s of 1m"),
    ({"test_accuracy": None, "val_accuracy": None}, "not scored, 3 classes, trained in 57s of 1m"),
    ({"budget_seconds": None}, "test accuracy 93.1 % of 420 images, 3 classes, trained in 57s, 1,200 steps"),
    ({"elapsed_seconds": "x"}, "test accuracy 93.1 % of 420 images, 3 classes"),
    ({"test_images": None}, "test accuracy 93.1 %, 3 classes, trained in 57s of 1m"),
)


@pytest.mark.parametrize(("changes", "words"), FACTS)
def test_a_run_in_a_line(copied: Path, changes: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(copied, copied.parent / "runs" / "first")
    monkeypatch.chdir(copied.parent)
    values = {
        "test_accuracy": 391 / 420, "test_images": 420, "test_images_total": 420, "val_accuracy": 0.91,
        "val_images": 200, "val_images_total": 200, "elapsed_seconds": 57.2, "budget_seconds": 60.0, "steps": 1200,
    }  # fmt: skip
    edit(Path("runs/first/summary.json"), **{**values, **changes})
    assert repr(Run("runs/first", "cpu")) == f"Run('runs/first': {words})"


def test_a_stopped_run_says_its_time(copied: Path) -> None:
    stopped = {"stopped": True, "budget_seconds": 60.0, "elapsed_seconds": 12.0}
    (copied / "summary.json").write_text(json.dumps({"format": 2, **stopped}))
    assert repr(Run(copied, "cpu")) == f"Run({str(copied)!r}: 3 classes, stopped after 12s of 1m before it was scored)"


class Page(HTMLParser):
    """The tags and attributes of a piece of HTML, and the texts of its cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def checked_page(run: Run) -> Page:
    """The page of a run: closed tags, no script, nothing from elsewhere, and no colour of its own."""
    page = Page(run._repr_html_())
    assert page.open == []
    assert page.tags <= {"div", "table", "tr", "th", "td", "p"}
    assert page.attributes == {("style", "text-align: left"), ("class", "tex2jax_ignore mathjax_ignore")}
    return page


@pytest.mark.usefixtures("without_pandas")
def test_the_table_of_a_notebook(run: Run) -> None:
    texts = checked_page(run).texts
    mistakes = run.mistakes()
    assert texts[texts.index("run") + 1] == str(run.path)
    num_right = round((run.test_accuracy or 0) * 30)
    assert re.fullmatch(
        rf"{100 * num_right / 30:.1f} % of 30 images, 95 % interval [\d.]+ to [\d.]+ %",
        texts[texts.index("test accuracy") + 1],
    )
    assert "validation accuracy" in texts
    assert texts[texts.index("classes") + 1] == "3"
    assert texts[texts.index("recipe") + 1] == "haet2021"
    assert texts[texts.index("time") + 1].startswith("trained in ")
    start = texts.index("Most confident mistakes on the test images:")
    assert texts[start + 1 : start + 5] == ["file", "label", "predicted", "probability"]
    shown = np.array(texts[start + 5 :]).reshape(-1, 4)
    assert len(shown) == 5
    for column, name in enumerate(("file", "label", "predicted")):
        assert shown[:, column].tolist() == mistakes[name][:5].tolist()
    assert shown[:, 3].tolist() == [f"{100 * share:.1f} %" for share in mistakes["probability"][:5]]


@pytest.mark.usefixtures("without_pandas")
def test_odd_names_are_whole_in_columns_and_escaped_in_the_page(copied: Path) -> None:
    edit(copied / "model.json", class_names=ODD_NAMES)
    ids = [f"<img src=x onerror=alert({number})>\n\u202e.png" for number in range(69)] + ["a\udcff/" * MAX_LENGTH]
    run = rewrite(copied, id=np.array(ids))
    table = run.predictions("all")
    assert table["file"].tolist() == ids
    assert set(table["label"]) == set(ODD_NAMES)
    assert set(run.mistakes()["predicted"]) <= set(ODD_NAMES)
    html = run._repr_html_()
    html.encode("utf-8")
    assert "\u202e" not in html
    assert "&lt;img src=x" in html
    page = checked_page(run)
    assert not {text for text in page.texts if "\n" in text}
    known = {"<script>alert(1)</script>", 'a & "b"\\n$x$', "\\u202edrib"}
    start = page.texts.index("probability") + 1
    assert {name for row in range(5) for name in page.texts[start + 4 * row + 1 : start + 4 * row + 3]} <= known
    assert "\n" not in repr(run)


@pytest.mark.usefixtures("without_pandas")
def test_long_names_are_cut_in_the_page_alone(copied: Path) -> None:
    names = tuple(letter * 5000 for letter in "abc")
    edit(copied / "model.json", class_names=names)
    run = rewrite(copied, id=np.array(["folder/" * 100 + f"{number}.png" for number in range(70)]))
    assert set(run.predictions()["label"]) == set(names)
    texts = checked_page(run).texts
    cells = texts[texts.index("probability") + 1 :]
    assert max(map(len, cells)) <= MAX_LENGTH + 1
    assert all(file.startswith("…") and file.endswith(".png") for file in cells[::4])
    assert all(name == name[0] * MAX_LENGTH + "…" for name in cells[1::4])


@pytest.mark.usefixtures("without_pandas")
def test_a_training_on_folders_with_odd_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folders = ("<img src=x onerror=alert(1)>", "R&D $5$")
    for folder in folders:
        (tmp_path / "photos" / folder).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / folder / f"<b>{number}'\".png")
    run = quick(tmp_path / "photos", tmp_path / "<i>run", settings=[*SMALL, "image_size=8"], test=0.5)
    table = run.predictions()
    assert set(table["label"]) == set(folders)
    for file, label in zip(table["file"], table["label"], strict=True):
        assert (tmp_path / "photos" / file).parent.name == label
        assert (tmp_path / "photos" / file).is_file()
    page = checked_page(run)
    assert str(run.path) in page.texts
