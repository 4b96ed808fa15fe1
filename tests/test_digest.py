"""The sums by which a change of form is told from a change of numerics."""

from pathlib import Path

import pytest

import digest
from timebox.training import schedule

RECIPE = {"haet2021": ("width=4", "batch_size=32")}


def found(folder: Path) -> digest.Digest:
    folder.mkdir()
    digest.draw(folder)
    return digest.train_all(folder, RECIPE, ("drawn-32x32",), 4)


@pytest.mark.integration
def test_the_same_trainings_have_the_same_sums_and_others_have_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = found(tmp_path / "first"), found(tmp_path / "again")
    assert list(first) == [f"haet2021 drawn-32x32 {part}" for part in digest.PARTS]
    assert len({len(value) for value in first.values()}) == 1
    assert digest.compare(again, first) == []
    original = schedule.lr_and_momentum_at
    # A change in the last digit of the learning rate.
    monkeypatch.setattr(
        schedule, "lr_and_momentum_at", lambda *given: (original(*given)[0] * (1 + 1e-6), original(*given)[1])
    )
    assert digest.compare(found(tmp_path / "other"), first) == sorted(first)


def test_what_differs_is_new_or_is_missing_is_named() -> None:
    assert digest.compare({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "0", "d": "4"}) == ["b", "c", "d"]
