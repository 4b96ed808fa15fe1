"""Values of JSON files as typed structures: errors in one line, unknown keys ignored, damaged values left out."""

from typing import Annotated, Literal

import numpy as np
import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from timebox.errors import RunError
from timebox.run.files import to_json
from timebox.run.json_values import from_values, to_values, valid_values


class Inner(Struct, frozen=True, kw_only=True):
    side: Annotated[int, Meta(ge=8)]


class Example(Struct, frozen=True, kw_only=True):
    name: str
    rate: Annotated[float, Meta(ge=0, le=1)]
    inner: Inner | None = None
    kind: Literal["a", "b"] = "a"
    late: bool | UnsetType = UNSET
    lines: tuple[str, ...] | UnsetType = UNSET


VALUES = {"name": "x", "rate": 0.5, "inner": {"side": 9}}


def test_unknown_keys_are_ignored() -> None:
    assert from_values({**VALUES, "novel": [1]}, Example, "'a.json'") == Example(
        name="x", rate=0.5, inner=Inner(side=9)
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rate": 3}, "expected float <= 1.0 at rate"),
        ({"rate": None}, "expected float, got null at rate"),
        ({"rate": 10**400}, "number out of range at rate"),
        ({"name": 1}, "expected str, got int at name"),
        ({"inner": {"side": True}}, "expected int, got bool at inner.side"),
        ({"inner": {}}, "object missing required field side at inner"),
        ({"kind": "c\nd"}, r"invalid enum value 'c\nd' at kind"),
    ],
)
def test_a_damaged_value_is_named_in_one_line(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(RunError) as caught:
        from_values({**VALUES, **changes}, Example, "'a.json'")
    assert str(caught.value) == f"'a.json' is damaged: {reason}"


def test_a_message_is_short_whatever_the_value() -> None:
    with pytest.raises(RunError) as caught:
        from_values({**VALUES, "kind": "x" * 10**6}, Example, "'a.json'")
    assert len(str(caught.value)) < 250


def test_damaged_values_are_left_out_and_unknown_ones_stay() -> None:
    values = {**VALUES, "rate": 3.0, "kind": 7, "novel": "y"}
    assert valid_values(values, Example) == {"name": "x", "inner": {"side": 9}, "novel": "y"}
    assert values["rate"] == 3.0, "the values given stay as they are"


def test_values_are_written_in_the_order_of_the_fields_without_those_unset() -> None:
    example = Example(rate=np.float64(0.5), name=np.str_("x"), inner=Inner(side=9))
    assert list(to_values(example).items()) == [
        ("name", "x"),
        ("rate", 0.5),
        ("inner", {"side": 9}),
        ("kind", "a"),
    ]
    assert to_values(Example(name="x", rate=1.0, late=False))["late"] is False
    assert to_values(Example(name="x", rate=1.0, lines=("a", "b")))["lines"] == ["a", "b"]


def test_a_path_that_is_not_utf_8_is_written_and_read() -> None:
    path = b"photos/\xff".decode("utf-8", "surrogateescape")
    written = to_json(to_values(Example(name=path, rate=0.5)))
    assert b'"photos/\\udcff"' in written
    assert from_values({"name": path, "rate": 0.5}, Example, "'a.json'").name == path
