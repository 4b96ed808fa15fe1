"""A run is repeated byte for byte from what it recorded, or the repetition is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.replays import (
    RUNS,
    TWO_THREADS,
    refused_with_fewer_threads,
    refused_with_other_data,
    replayed,
    rolled_back_run,
    two_threads_run,
)


@pytest.mark.parametrize("make", RUNS, ids=lambda make: make.__name__)
def test_the_weights_are_the_same(make: Callable[[Path], Path], tmp_path: Path) -> None:
    assert not replayed(make(tmp_path))


def test_more_threads_are_left_unused(tmp_path: Path) -> None:
    assert not replayed(rolled_back_run(tmp_path), TWO_THREADS)


def test_fewer_threads_are_refused(tmp_path: Path) -> None:
    assert not refused_with_fewer_threads(two_threads_run(tmp_path))


def test_other_data_are_refused(tmp_path: Path) -> None:
    assert not refused_with_other_data(rolled_back_run(tmp_path))
