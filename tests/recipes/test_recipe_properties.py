"""Whatever a recipe file or a --set text holds, it becomes a recipe or a UsageError."""

from pathlib import Path

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from timebox.errors import UsageError
from timebox.recipes import FIELDS, RECIPES, Recipe, get_recipe, parse_settings

NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, 10**300, 10**400, -(10**400)])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20) | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELD_NAMES = st.sampled_from([*FIELDS, "extends", "witdh"])


def read(path: Path, blob: bytes) -> Recipe | None:
    path.write_bytes(blob)
    try:
        return get_recipe(str(path))
    except UsageError:
        return None


def check(path: Path, blob: bytes) -> None:
    """What is read at all can be written down and read again."""
    if (recipe := read(path, blob)) is not None:
        assert read(path, recipe.to_toml().encode()) == recipe


@given(blob=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@example(blob=b"width = " + b"[" * 100_000)
@example(blob=b"a" + b".a" * 100_000 + b" = 1")
@example(blob=b"width = " + b"9" * 10_000)
@example(blob=b"width = 0x" + b"f" * 10_000)
@example(blob=b"max_lr = nan")
@example(blob=b"width = 2020-99-99")
@example(blob=b'extends = ["haet2021"]')
@example(blob=b'extends = "haet2021"\nname = "two\\nlines"')
def test_any_bytes(blob: bytes, tmp_path: Path) -> None:
    check(tmp_path / "file.toml", blob)


@given(
    base=st.sampled_from([None, *RECIPES]),
    changes=st.dictionaries(FIELD_NAMES | st.text(max_size=9), VALUES, max_size=3),
)
def test_any_values(base: str | None, changes: dict[str, object], tmp_path: Path) -> None:
    values = {**(RECIPES[base]().as_dict() if base else {}), **changes}
    try:
        blob = tomli_w.dumps(values).encode()
    except (TypeError, ValueError, AttributeError):  # None, for which TOML has no word, half a surrogate pair, ...
        return
    check(tmp_path / "file.toml", blob)


@given(
    st.lists(
        st.builds(lambda name, value: f"{name}={value}", FIELD_NAMES | st.text(max_size=9), VALUES)
        | st.text(max_size=30)
    )
)
@example(["width=0x" + "f" * 10_000])
@example(["max_lr=" + "9" * 5_000])
@example(["max_lr=" + "9" * 400])
@example(["width=" + "[" * 100_000])
@example(["width=1\nvalue=2"])
@example(["width=8\nx=1"])
@example(["=", "", "name=\ud800"])
def test_any_settings(texts: list[str]) -> None:
    try:
        values = parse_settings(texts)
    except UsageError:
        return
    assert set(values) <= set(FIELDS)


def test_a_recipe_file_that_is_none(tmp_path: Path) -> None:
    for name in ("nu\0ll.toml", "x" * 5000 + ".toml", str(tmp_path / "none.toml")):
        with pytest.raises(UsageError, match="cannot be read"):
            get_recipe(name)
