"""`timebox evaluate`: the accuracy, its uncertainty, the classes and what is confused."""

from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from timebox.cli.evaluate import renderables
from timebox.cli.formatting import show
from timebox.data import BadFile

from .conftest import Command, Replace


@dataclass
class Figures:
    """Stands in for ClassFigures."""

    name: str
    num_images: int
    precision: float
    recall: float
    f1: float


@dataclass
class FakeEvaluation:
    """Stands in for Evaluation."""

    confusion: NDArray[np.int64]
    num_seen_in_training: int = 0
    num_images_total: int = 100
    accuracy_unseen: float | None = 0.5
    notes: tuple[str, ...] = ()
    bad_files: tuple[object, ...] = ()
    run: str = "runs/demo"
    data: str = "digits"
    split: str = "test"
    tta: str = "mirror"
    seconds: float = 1.25
    balanced_accuracy: float = 0.5
    macro_precision: float = 0.25
    macro_f1: float = 0.125
    classes: tuple[Figures, ...] = ()
    confusion_pairs: NDArray[np.int64] = field(init=False)
    num_correct: int = field(init=False)
    num_images: int = field(init=False)
    accuracy: float = field(init=False)

    def __post_init__(self) -> None:
        self.num_images, self.num_correct = int(self.confusion.sum()), int(self.confusion.trace())
        indices = np.argwhere(self.confusion)
        self.confusion_pairs = np.column_stack([indices, self.confusion[tuple(indices.T)]])
        self.accuracy = float(self.confusion.trace() / self.num_images) if self.num_images else float("nan")
        counts = self.confusion.sum(1).tolist()
        self.classes = tuple(Figures(f"class {i}", count, 0.5, 0.25, 1 / (i + 3)) for i, count in enumerate(counts))

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def evaluation_of(num_classes: int, **given: object) -> FakeEvaluation:
    confusion = np.eye(num_classes, dtype=np.int64) * 9
    confusion[0, 1] = 3
    confusion[1, 0] = 1
    return FakeEvaluation(confusion, **given)  # type: ignore[arg-type]


def shown(evaluation: FakeEvaluation, capsys: pytest.CaptureFixture[str], width: int = 80) -> str:
    show(*renderables(evaluation, width))  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_figures_classes_and_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(evaluation_of(3), capsys)
    assert "  accuracy       87.10 %   27 of 31 images, of 100 in all" in out
    assert "  95 % interval  71.15 % to 94.87 %" in out
    assert ["class", "1", "10", "50.0", "%", "25.0", "%", "25.0", "%"] in [line.split() for line in out.splitlines()]
    assert "confusion matrix" in out
    assert ["0", "class", "0", "9", "3", "·"] in [line.split() for line in out.splitlines()]
    assert "WARNING" not in out
    assert "\x1b" not in out


def test_many_classes_show_the_weakest_and_what_is_confused_most(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(evaluation_of(50), capsys)
    assert "the 40 weakest of 50 classes" in out
    assert "confusion matrix" not in out
    assert ["class", "0", "→", "class", "1", "3", "25.0", "%"] in [line.split() for line in out.splitlines()]
    assert out.index("class 0 → class 1") < out.index("class 1 → class 0")


def test_a_matrix_that_does_not_fit_gives_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert "confusion matrix" in shown(evaluation_of(12), capsys, width=80)
    narrow = shown(evaluation_of(12), capsys, width=40)
    assert "confusion matrix" not in narrow
    assert "most frequent confusions" in narrow


def test_images_trained_on_are_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(evaluation_of(3, num_seen_in_training=7), capsys)
    assert (
        "WARNING        this run was trained on 7 of these 31 images, which count in the accuracy: on the other 24"
        in out
    )
    out = shown(evaluation_of(3, num_seen_in_training=31, accuracy_unseen=None), capsys)
    assert "was trained on all of these 31 images: the accuracy says nothing about new images" in out


def test_unreadable_files_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    bad = tuple(BadFile(f"cat/{k}.png", "empty file (0 bytes)") for k in range(7))
    lines = shown(evaluation_of(3, bad_files=bad), capsys).splitlines()
    assert "  unreadable     7 files left out" in lines
    assert "  unreadable     cat/0.png: empty file (0 bytes)" in lines
    assert "  unreadable     … and 2 more; --json has all" in lines


def test_nothing_confused_and_nothing_scored(capsys: pytest.CaptureFixture[str]) -> None:
    assert "confusions" not in shown(FakeEvaluation(np.eye(30, dtype=np.int64)), capsys)
    assert "  accuracy       –   0 of 0 images" in shown(FakeEvaluation(np.zeros((2, 2), np.int64)), capsys)


def test_the_verb_hands_on_its_options_and_prints_json(timebox: Command, replace: Replace) -> None:
    given: dict[str, object] = {}

    def evaluate(run: str, data: str, **options: object) -> FakeEvaluation:
        given.update(options, run=run, data=data)
        return evaluation_of(3)

    replace("timebox.pipelines.evaluate", evaluate=evaluate)
    command = "evaluate runs/a photos --split val --test-limit 50 --tta none --device cpu --data-dir /d --json"
    outcome = timebox(*command.split())
    assert outcome.status == 0
    assert outcome.json()["num_images"] == 31
    del given["reporter"]
    assert given == {
        "run": "runs/a", "data": "photos", "split": "val", "test_limit": 50, "tta": "none", "device": "cpu",
        "class_depth": None, "data_dir": "/d", "max_bad_share": 0.1, "cache": True, "trust_code": False,
    }  # fmt: skip
