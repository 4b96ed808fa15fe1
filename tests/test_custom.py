"""Names of a user's code: given, trusted, or refused."""

import sys
from functools import partial
from pathlib import Path

import pytest

import own_networks
import timebox
from own_networks import ConvNet, Mlp
from timebox import custom
from timebox.custom import names
from timebox.errors import UsageError
from timebox.recipes import Multiplier, Recipe, RecipeSpec, parse_recipe, recipe_request


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_objects", {})
    monkeypatch.setattr(names, "_trusted", set())


def test_an_object_that_a_name_leads_to_has_that_name() -> None:
    assert custom.name_of(Mlp, "model") == "own_networks:Mlp"
    assert custom.find("own_networks:Mlp", "model") is Mlp
    assert custom.source_sha256("own_networks:Mlp") == custom.source_sha256(custom.name_of(partial(Mlp), "model"))


def test_other_objects_have_names_of_their_own() -> None:
    first, second = (lambda n, width=width: ConvNet(n, width) for width in (4, 8))
    names = [custom.name_of(one, "model") for one in (first, second, ConvNet(3), first)]
    assert names[3] == names[0]
    assert len(set(names)) == 3
    assert all(custom.is_code_name(name) and name.startswith("given:") for name in names)
    assert custom.find(names[1], "model") is second


def test_a_name_that_was_only_read_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_strangers.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UsageError, match=r"is code, and only imported where you say so, with trust_code=True"):
        custom.find("a_strangers:net", "model")
    with pytest.raises(UsageError, match="was an object in a Python program: give it again, as loss=…"):
        custom.find("given:loss-1234abcd", "loss")
    assert "a_strangers" not in sys.modules
    custom.trust(["a_strangers:net"])
    with pytest.raises(UsageError, match="importing a_strangers failed with SystemExit: imported"):
        custom.find("a_strangers:net", "model")


@pytest.mark.parametrize("value", ["mynet", "a b:c", ":c", "a:", "a:b:c", "../x:y", "a:b()"])
def test_what_is_no_name_is_refused(value: str) -> None:
    with pytest.raises(UsageError):
        custom.name_of(value, "model")
    with pytest.raises(UsageError):
        parse_recipe("haet2021", [f"model={value}"])


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(UsageError, match="optimizer is a int: give a function"):
        custom.name_of(3, "optimizer")
    with pytest.raises(UsageError, match="'own_networks:NETWORKS' is a dict, and cannot be called"):
        custom.name_of("own_networks:NETWORKS", "model")


def test_errors_of_the_code_name_it_and_the_line() -> None:
    with (
        pytest.raises(UsageError, match=r"the loss 'a:b' failed: ZeroDivisionError: .*test_custom\.py:\d+"),
        custom.named_in_errors("a:b", "loss"),
    ):
        _ = 1 // 0
    with pytest.raises(MemoryError), custom.named_in_errors("a:b", "loss"):
        raise MemoryError


def test_a_recipe_names_code() -> None:
    spec = parse_recipe("auto", ["model=own_networks:Mlp", "width=16"])
    assert spec.fits_data
    assert spec.fixed is not None
    assert (spec.fixed.name, spec.fixed.model, spec.fixed.optimizer) == ("adamw", "own_networks:Mlp", "adamw")
    other = parse_recipe("haet2021", ["model=own_networks:Mlp"]).base
    assert (other.whitening, other.ghost_size, other.optimizer) == (False, 0, "sgd")
    with pytest.raises(UsageError, match="whitening must be false for own_networks:Mlp"):
        parse_recipe("haet2021", ["model=own_networks:Mlp", "whitening=true"])
    assert parse_recipe("auto", ["optimizer=own_networks:adam"]).overrides["max_lr"] == 1.0
    assert parse_recipe("haet2021", ["optimizer=own_networks:adam", "max_lr=0.5"]).base.max_lr == 0.5


def test_recipe_objects_are_what_their_texts_are() -> None:
    wide = timebox.recipe("airbench94", width=96, max_lr="x0.5")
    assert isinstance(wide, Recipe)
    spec = timebox.recipe("auto", max_lr=0.4, width="x2")
    assert isinstance(spec, RecipeSpec)
    assert spec.replace(width=32).overrides == {"max_lr": 0.4, "width": 32}
    assert dict(spec.overrides) == {"max_lr": 0.4, "width": Multiplier(2.0)}
    for one in (wide, wide.replace(name="my own", flip="none", whitening=True), timebox.recipe("superconvergence")):
        texts = recipe_request(one, (), {})
        assert parse_recipe(str(texts["recipe"]), texts["settings"]).fixed == one  # type: ignore[arg-type]
    texts = recipe_request(spec, ("seed_is_no=field",), {})
    assert texts == {"recipe": "auto", "settings": ("max_lr=0.4", "width=x2", "seed_is_no=field")}
    own = timebox.recipe("auto", model=own_networks.Mlp)
    texts = recipe_request(own, (), {})
    assert (texts["recipe"], texts["settings"]) == ("auto", ("model=own_networks:Mlp",))
    assert own.to_toml() == 'extends = "auto"\nmodel = "own_networks:Mlp"\n'


def test_recipe_objects_are_written_as_toml(tmp_path: Path) -> None:
    for number, one in enumerate((timebox.recipe("auto", max_lr=0.4, width="x2"), timebox.recipe("dawnbench"))):
        file = tmp_path / f"{number}.toml"
        file.write_text(one.to_toml())
        read = parse_recipe(str(file))
        assert read.fixed == (one if isinstance(one, Recipe) else None)
        if isinstance(one, RecipeSpec):
            assert {**one.overrides, "name": str(number)} == dict(read.overrides)


@pytest.mark.parametrize("fields", [{"widht": 3}, {"width": 1}, {"flip": "up"}, {"max_lr": "fast"}])
def test_invalid_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(fields))):
        timebox.recipe("auto", **fields)
