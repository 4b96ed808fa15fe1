"""Corrected pictures: classes whose folders `timebox train` would read as another class are refused, one by one."""

import os
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from timebox.data import load_data
from timebox.serving.http.bodies import Picture
from timebox.serving.http.errors import RequestError
from timebox.serving.predictions.feedback import Feedback, folder_problem

from .conftest import encoded

GOOD = (
    "cat", "dog", "0", "007", "Ångström", "猫", "two words", "a.b", "-rf", "~", "images", "unknown", "train me",
    "é" * 127, "x" * 255,
)  # fmt: skip
BAD = (
    "", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "é" * 128, "x" * 256, ".hidden", "__MACOSX", "train", "Test",
    "validation", "unlabelled", " spaces ", "e\u0301", "zero\u200bwidth",
)  # fmt: skip


def test_names_are_kept_as_train_reads_them(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "feedback", (*GOOD, *BAD))
    for number, label in enumerate(GOOD):
        for seed in range(3):
            path, previous = feedback.save(Picture("", encoded(seed=100 * number + seed)), label)
            assert (path.parent.name, previous) == (label, None)
    train = load_data(tmp_path / "feedback").splits.train
    assert set(train.class_names) == set(GOOD)
    assert len(train) == 3 * len(GOOD)


@pytest.mark.parametrize("label", BAD)
def test_a_name_that_cannot_be_a_class_folder_is_refused_alone(tmp_path: Path, label: str) -> None:
    feedback = Feedback(tmp_path / "feedback", ("cat", label))
    picture = Picture("", encoded())
    with pytest.raises(RequestError, match=r"cannot be kept: .*; those of other classes can") as refused:
        feedback.save(picture, label)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 200
    path, _ = feedback.save(picture, "cat")
    assert path.is_file()
    assert feedback.remove(picture) == [path]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_names_that_windows_reserves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "name", "nt")
    for label in ("CON", "nul.x", "a.", "a:b", "what?"):
        assert folder_problem(label) == "Windows allows no folder of its name"
    assert folder_problem("cat") == ""
