"""Formats: values go from each to the next up to the newest; what cannot be read is refused in one line."""

import re
from pathlib import Path

import pytest

from timebox.errors import RunError
from timebox.file_versions import FORMATS, FileFormat, Values

PAGE = Path(__file__).parents[1] / "docs" / "run-format.md"


def rename_members(values: Values) -> Values:
    """From 3 to 4."""
    return {"networks": values["members"], **{key: value for key, value in values.items() if key != "members"}}


def add_seed(values: Values) -> Values:
    """From 4 to 5."""
    return {**values, "seed": 0}


FORM = FileFormat("some.json", oldest=3, steps=(rename_members, add_seed))


def refusal(values: Values, form: FileFormat = FORM) -> str:
    with pytest.raises(RunError) as caught:
        form.upgraded(values, "'a/some.json'")
    return str(caught.value)


@pytest.mark.parametrize(
    ("found", "upgraded"),
    [
        ({"format": 3, "members": 2}, {"format": 5, "networks": 2, "seed": 0}),
        ({"format": 4, "networks": 2}, {"format": 5, "networks": 2, "seed": 0}),
        ({"format": 5, "networks": 2, "seed": 7}, {"format": 5, "networks": 2, "seed": 7}),
    ],
)
def test_every_format_is_brought_to_the_newest(found: Values, upgraded: Values) -> None:
    before = dict(found)
    assert FORM.upgraded(found, "a file") == upgraded
    assert found == before, "what is given stays as it is"


def test_what_is_written_is_of_the_newest() -> None:
    assert FORM.newest == 5
    assert list(FORM.numbered({"seed": 7}).items()) == [("format", 5), ("seed", 7)]
    assert FORM.upgraded(FORM.numbered({"seed": 7}), "a file") == {"format": 5, "seed": 7}


def test_without_a_number_it_is_the_first_format() -> None:
    form = FileFormat("some.json", steps=(add_seed,))
    assert form.upgraded({}, "a file") == {"format": 2, "seed": 0}
    assert refusal({}) == "'a/some.json' has format 1; the oldest that a released version wrote is 3"


@pytest.mark.parametrize("number", [6, 1000, 10**60])
def test_a_newer_format_is_refused(number: int) -> None:
    assert refusal({"format": number}).startswith("'a/some.json' has format ")
    assert refusal({"format": number}).endswith(
        "; this version of timebox reads formats up to 5: install a newer timebox-vision"
    )
    assert len(refusal({"format": number})) < 150


@pytest.mark.parametrize("number", [0, -1, True, "4", 4.0, None, [4], "x" * 10_000])
def test_what_is_no_number_of_a_format_is_damage(number: object) -> None:
    message = refusal({"format": number})
    assert message.startswith("'a/some.json' is damaged: its format ")
    assert message.endswith(" is no whole number from 1 on")
    assert len(message) < 150


def test_values_that_a_step_cannot_take_are_damage() -> None:
    assert refusal({"format": 3}) == "'a/some.json' is damaged: 'members'"


def test_the_page_says_the_formats_of_all_files() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (\d+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {file: int(number) for file, number in rows} == {form.file: form.newest for form in FORMATS}
    assert len(rows) == len(FORMATS) == 17
