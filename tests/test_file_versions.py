"""Formats: migrations bring values to the newest one; damaged and newer formats are refused in one line."""

import json
import re
from pathlib import Path

import pytest

from timebox.errors import RunError
from timebox.file_versions import (
    CHECKPOINT_FORMAT,
    FORMATS,
    RANKS_FORMAT,
    SUMMARY_FORMAT,
    TUNE_FORMAT,
    TUNE_SUMMARY_FORMAT,
    FileFormat,
    Values,
)

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "run-format.md"


def rename_members(values: Values) -> Values:
    """Migrates format 3 to 4."""
    return {"networks": values["members"], **{key: value for key, value in values.items() if key != "members"}}


def add_seed(values: Values) -> Values:
    """Migrates format 4 to 5."""
    return {**values, "seed": 0}


FORMAT = FileFormat("some.json", oldest=3, steps=(rename_members, add_seed))


def refusal(values: Values, file_format: FileFormat = FORMAT) -> str:
    with pytest.raises(RunError) as caught:
        file_format.upgraded(values, "'a/some.json'")
    return str(caught.value)


@pytest.mark.parametrize(
    ("found", "upgraded"),
    [
        ({"format": 3, "members": 2}, {"format": 5, "networks": 2, "seed": 0}),
        ({"format": 4, "networks": 2}, {"format": 5, "networks": 2, "seed": 0}),
        ({"format": 5, "networks": 2, "seed": 7}, {"format": 5, "networks": 2, "seed": 7}),
    ],
)
def test_every_format_is_migrated_to_the_newest(found: Values, upgraded: Values) -> None:
    before = dict(found)
    assert FORMAT.upgraded(found, "a file") == upgraded
    assert found == before, "the values given stay as they are"


def test_values_are_written_in_the_newest_format() -> None:
    assert FORMAT.newest == 5
    assert list(FORMAT.numbered({"seed": 7}).items()) == [("format", 5), ("seed", 7)]
    assert FORMAT.upgraded(FORMAT.numbered({"seed": 7}), "a file") == {"format": 5, "seed": 7}


def test_without_a_number_the_format_is_the_first() -> None:
    file_format = FileFormat("some.json", steps=(add_seed,))
    assert file_format.upgraded({}, "a file") == {"format": 2, "seed": 0}
    assert refusal({}) == "'a/some.json' has format 1; the oldest that a released version wrote is 3"


@pytest.mark.parametrize("number", [6, 1000, 10**60])
def test_a_newer_format_is_refused(number: int) -> None:
    assert refusal({"format": number}).startswith("'a/some.json' has format ")
    assert refusal({"format": number}).endswith(
        "; this version of timebox reads formats up to 5: install a newer timebox-vision"
    )
    assert len(refusal({"format": number})) < 150


@pytest.mark.parametrize("number", [0, -1, True, "4", 4.0, None, [4], "x" * 10_000])
def test_a_format_that_is_no_number_is_damage(number: object) -> None:
    message = refusal({"format": number})
    assert message.startswith("'a/some.json' is damaged: its format ")
    assert message.endswith(" is no whole number from 1 on")
    assert len(message) < 150


def test_values_that_a_migration_cannot_take_are_damage() -> None:
    assert refusal({"format": 3}) == "'a/some.json' is damaged: 'members'"


@pytest.mark.parametrize(
    ("file_format", "values", "upgraded"),
    [
        (SUMMARY_FORMAT, {"steps": 3}, {"format": 2, "steps": 3}),
        (
            SUMMARY_FORMAT,
            {"elsewhere": True, "late": False, "lost_ranks": ["rank 1"]},
            {"format": 2, "trained_on_other_machine": True, "late": False, "rank_failures": ["rank 1"]},
        ),
        (
            RANKS_FORMAT,
            {"format": 1, "launcher": "a", "members": [{"rank": 0}], "lost": []},
            {"format": 2, "launcher": "a", "ranks": [{"rank": 0}], "failures": []},
        ),
        (
            CHECKPOINT_FORMAT,
            {"step": 1, "facts": {"lr_factor": 0.5, "elsewhere": False}},
            {"format": 2, "step": 1, "training_state": {"lr_factor": 0.5, "trained_on_other_machine": False}},
        ),
        (TUNE_FORMAT, {"version": "0.1.0", "asked": {}}, {"format": 2, "version": "0.1.0", "config": {}}),
        (TUNE_SUMMARY_FORMAT, {"leaders": [], "check": []}, {"format": 2, "best_trials": [], "check": []}),
    ],
)
def test_keys_of_version_0_1_0_have_their_new_names(file_format: FileFormat, values: Values, upgraded: Values) -> None:
    before = json.loads(json.dumps(values))
    assert file_format.upgraded(values, "a file") == upgraded
    assert values == before, "the values given stay as they are"


@pytest.mark.parametrize("values", [{"step": 1}, {"facts": None}, {"facts": [1]}])
def test_a_manifest_without_facts_is_damaged(values: Values) -> None:
    assert refusal(values, CHECKPOINT_FORMAT).startswith("'a/some.json' is damaged: ")


def test_the_page_lists_the_formats_of_all_files() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {file: int(number) for file, number in rows} == {one.file: one.newest for one in FORMATS}
    assert len(rows) == len(FORMATS) == 21
