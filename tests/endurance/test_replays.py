"""A run is repeated byte for byte from what it recorded, or the repetition is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.replays import RUNS, clocked_run, refused_with_other_data, refused_with_other_threads, replayed

Make = Callable[[Path], Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clocked_run(tmp_path_factory.mktemp("replays"))


@pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)
def test_the_weights_are_the_same(make: Make, tmp_path: Path) -> None:
    assert not replayed(make(tmp_path))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_other_threads_are_refused(run: Path) -> None:
    assert not refused_with_other_threads(run)


def test_other_data_are_refused(run: Path) -> None:
    assert not refused_with_other_data(run)
