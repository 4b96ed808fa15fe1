"""Memory that runs out: batches are split as far as they must be, and one image that does not fit is refused."""

from pathlib import Path

import pytest

from scenarios.out_of_memory import ERRORS, split_into_groups, split_within_groups, too_little_for_one_image

errors = pytest.mark.parametrize("error", ERRORS)


@errors
def test_room_for_one_normalisation_group(error: str, tmp_path: Path) -> None:
    assert not split_into_groups(tmp_path / "run", error)


@errors
def test_room_for_a_part_of_a_normalisation_group(error: str, tmp_path: Path) -> None:
    assert not split_within_groups(tmp_path / "run", error)


@errors
def test_no_room_for_one_image(error: str, tmp_path: Path) -> None:
    assert not too_little_for_one_image(tmp_path / "run", error)
