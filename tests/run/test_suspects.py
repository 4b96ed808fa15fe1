"""Training images whose label the training doubts: wrong labels come first, and damaged files are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from small_runs import CLASSES, coloured, quick, refusal
from timebox.cli import main
from timebox.run import Run
from timebox.run.files import SUSPECTS

NUM_WRONG = 8


@pytest.fixture(scope="module")
def mislabelled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on 150 images, of which the first eight have the label of another class."""
    folder = tmp_path_factory.mktemp("suspects")
    images, labels = coloured(150)
    labels[:NUM_WRONG] = (labels[:NUM_WRONG] + 1) % 3
    np.savez(folder / "data.npz", train_images=images, train_labels=labels, class_names=np.array(CLASSES))
    return quick(folder / "data.npz", folder / "run", steps=40, val="none")


def test_wrong_labels_come_first_with_the_class_that_they_look_like(mislabelled: Run) -> None:
    table = mislabelled.suspects()
    files, labels, others = (list(table[name]) for name in ("file", "label", "looks_like"))
    assert {int(str(name).rpartition(":")[2].rpartition("/")[2]) for name in files[:NUM_WRONG]} == set(range(NUM_WRONG))
    for label, other in list(zip(labels, others, strict=True))[:NUM_WRONG]:
        assert (CLASSES.index(other) + 1) % 3 == CLASSES.index(label)
    margins = list(table["margin"])
    assert margins == sorted(margins)
    assert max(margins) < 0


def test_the_report_shows_them(mislabelled: Run) -> None:
    page = (mislabelled.path / "report.html").read_text()
    assert "Training images whose label the training doubts" in page
    assert "looks like" in page


def test_the_command_lists_them(mislabelled: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(mislabelled.path), "--suspects"]) == 0
    assert "whose label the training doubts" in capsys.readouterr().out
    assert main(["inspect", str(mislabelled.path), "--suspects", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["suspects"]
    assert len(rows) >= NUM_WRONG
    assert set(rows[0]) == {"file", "label", "looks_like", "margin"}


def test_a_clean_run_has_few(trained: Run) -> None:
    assert len(trained.suspects()["file"]) < 10


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({}, "lacks the column 'id'"),
        ({"margin": np.zeros(3, np.float32)}, "not of one length"),
        ({"label": np.full(2, 9)}, "outside 0...2"),
        ({"margin": np.full(2, np.nan, np.float32)}, "no finite numbers"),
        ({"id": np.zeros(2)}, "names are no texts"),
    ],
)
def test_damaged_files_are_refused(trained: Run, tmp_path: Path, columns: dict[str, np.ndarray], reason: str) -> None:
    (tmp_path / "model.json").write_bytes((trained.path / "model.json").read_bytes())
    run = Run(tmp_path)
    assert "has no suspects.npz" in refusal(run.suspects)
    good = {
        "id": np.array(["a", "b"]),
        "label": np.zeros(2, np.int64),
        "rival": np.ones(2, np.int64),
        "margin": np.full(2, -1, np.float32),
    }
    np.savez(tmp_path / SUSPECTS, **({**good, **columns} if columns else {"label": good["label"]}))
    assert reason in refusal(run.suspects)
