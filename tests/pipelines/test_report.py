"""Pages from run directories, written by the training and afterwards."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from small_runs import FILES, quick, save_npz
from timebox.errors import OutputError, RunError, UsageError
from timebox.pipelines import compare, report
from timebox.pipelines.report import read_run_data
from timebox.pipelines.tensorboard import tensorboard
from timebox.planning.budget import REPORT_SECONDS
from timebox.reporting import RunData
from timebox.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    return quick(save_npz(folder / "colours.npz", num_val=40, num_test=30), folder / "run", steps=12)


@pytest.fixture
def copied(run: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path, tmp_path / "run"))


def test_report_rewrites_the_page_that_training_wrote(run: Run, copied: Path) -> None:
    written = (copied / "report.html").read_text(encoding="utf-8")
    assert report(copied) == copied / "report.html"
    again = (copied / "report.html").read_text(encoding="utf-8")
    # The training wrote the page before it knew the durations of later phases.
    for section in ("confusion", "classes", "calibration", "images", "thresholds", "augmentation", "plan"):
        part = [page[page.index(f'id="{section}"') :].partition("</section>")[0] for page in (written, again)]
        assert part[0] == part[1], section


def test_what_the_page_knows(run: Run) -> None:
    facts = read_run_data(run)
    assert isinstance(facts, RunData)
    assert [(one.split, len(one.labels)) for one in facts.predictions] == [("test", 30), ("val", 40)]
    assert facts.predictions[0].accuracy == pytest.approx(run.test_accuracy)
    assert len(facts.curve("loss")) == 12
    assert {one.kind for one in facts.examples} <= {"suspect", "augmented"}
    assert sum(one.kind == "augmented" for one in facts.examples) == 12
    assert facts.thumbnails is not None
    assert sorted(facts.thumbnails.rows) == list(range(30))
    wrong = facts.predictions[0].predicted != facts.predictions[0].labels
    assert wrong[facts.thumbnails.rows[: wrong.sum()]].all()
    assert facts.text("command").startswith("timebox train ")


def shows_images(page: Path) -> bool:
    text = page.read_text(encoding="utf-8")
    thumbnails = re.search(r'id="thumbnails-data">(.*?)</script>', text)
    assert thumbnails
    return 'src="data:image' in text or any(json.loads(thumbnails[1]))


def test_without_thumbnails_no_image_is_kept(tmp_path: Path) -> None:
    data = save_npz(tmp_path / "colours.npz")
    run = quick(data, tmp_path / "run", thumbnails=False)
    assert {path.name for path in run.path.iterdir()} == FILES - {"examples.npz", "thumbnails.npz"}
    assert not shows_images(run.path / "report.html")
    kept = quick(data, tmp_path / "kept")
    assert shows_images(kept.path / "report.html")
    assert not shows_images(report(kept, output=tmp_path / "plain.html", thumbnails=False))


def test_the_report_is_left_out_when_time_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_time_for = "timebox.jobs.finishing.finisher.RunFinisher._is_time_for"
    monkeypatch.setattr(is_time_for, lambda finisher, name, *seconds: name != "report.html")
    run = quick(save_npz(tmp_path / "colours.npz"), tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == FILES - {
        *("examples.npz", "suspects.npz", "thumbnails.npz", "report.html")
    }
    assert run.val_accuracy is not None
    assert REPORT_SECONDS > 0


def test_an_unwritable_report_is_listed_and_the_run_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OutputError("report.html cannot be written")

    monkeypatch.setattr("timebox.run.writer.RunWriter.save_report", refuse)
    run = quick(save_npz(tmp_path / "colours.npz"), tmp_path / "run")
    assert run.summary["unwritten"] == ["report.html"]
    assert run.val_accuracy is not None


@pytest.mark.parametrize(
    ("file", "spoil", "words"),
    [
        ("predictions.npz", {"label": np.array([7])}, "predictions.npz lacks 'split'"),
        (
            "predictions.npz",
            {"split": ["val"], "id": ["a"], "label": [0], "probabilities": [[1.0]]},
            "no probabilities of 3 classes",
        ),
        ("examples.npz", {"kind": ["mistake"]}, "it lacks 'image'"),
        ("examples.npz", None, "examples.npz' cannot be read"),
        ("thumbnails.npz", None, "thumbnails.npz' cannot be read"),
        ("thumbnails.npz", {"split": "test"}, "thumbnails.npz lacks 'row'"),
    ],
)
def test_damaged_files_are_named(copied: Path, file: str, spoil: dict[str, object] | None, words: str) -> None:
    if spoil is None:
        (copied / file).write_bytes(b"PK")
    else:
        np.savez(copied / file, **{name: np.asarray(value) for name, value in spoil.items()})
    with pytest.raises(RunError, match=words):
        report(copied)


def test_a_run_without_predictions_has_a_page(copied: Path) -> None:
    for name in ("predictions.npz", "examples.npz", "thumbnails.npz", "metrics.jsonl"):
        (copied / name).unlink()
    assert "Nothing was scored" in report(copied).read_text(encoding="utf-8")


def test_compare_needs_two_runs(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give two runs or more"):
        compare([run])
    facts = compare([run, run.path], output=tmp_path / "deep" / "comparison.html")
    assert [one.name for one in facts] == ["run", "run"]
    assert (tmp_path / "deep" / "comparison.html").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        compare([run, run], output=tmp_path / "file" / "x.html")


def test_metrics_for_tensorboard(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    place = tensorboard(run, tmp_path)
    assert place == tmp_path / "run"
    events = accumulator.EventAccumulator(str(place)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(step, pytest.approx(loss)) for step, loss in read_run_data(run).curve("loss")]
    assert set(events.Tags()["scalars"]) == {"loss", "lr", "momentum", "val_accuracy"}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'timebox-vision\[tensorboard\]'"):
        tensorboard(run, tmp_path)
