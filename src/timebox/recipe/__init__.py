"""Recipes: what they are made of, the built-in ones, and finding one by name or file."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.recipe.builtin import RECIPES, auto
from timebox.recipe.recipe import (
    FIELDS,
    Multiplier,
    Recipe,
    Setting,
    Value,
    changed,
    describe_field,
    parse_settings,
    present_fields,
    recipe_from,
    setting_from,
    settings_from,
)

__all__ = [
    "AUTO",
    "Draft",
    "FIELDS",
    "RECIPES",
    "Recipe",
    "Setting",
    "Multiplier",
    "Value",
    "changed",
    "describe_field",
    "describe_recipe",
    "draft_of",
    "get_recipe",
    "parse_settings",
    "present_fields",
    "recipe_from",
    "recipe_names",
    "setting_from",
]

AUTO = "auto"

MAX_FILE_BYTES = 16_384  # a whole recipe has 3,000; tomllib takes time by the square of a key's length


def recipe_names() -> list[str]:
    """Every name ``--recipe`` takes."""
    return [AUTO, *RECIPES]


def describe_recipe(name: str) -> str:
    """What a built-in recipe is, as its docstring says; the first line is a summary."""
    if name == AUTO:
        return (auto.__doc__ or "").strip()
    if name not in RECIPES:
        raise UsageError(_unknown(name))
    return (RECIPES[name].__doc__ or "").strip()


@dataclass(frozen=True)
class Draft:
    """A recipe before data and budget are known.

    Attributes:
        fixed: the whole recipe; None where ``auto`` plans it.
        changes: what ``auto`` is to take as given, or to multiply. Where the recipe is fixed, the settings that are in
            it already.
    """

    fixed: Recipe | None
    changes: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def base(self) -> Recipe:
        """The recipe; where it is planned, what it is made from, with the changes."""
        return self.fixed or auto().replace(**self.changes)


def draft_of(name: str, settings: Sequence[str] = ()) -> Draft:
    """What a recipe's name or TOML file says, with ``FIELD=VALUE`` and ``FIELD=xFACTOR`` texts applied in their order.

    A file gives every field, or names what it starts from with ``extends = "haet2021"`` or ``"auto"`` and gives the
    others, as values or as multiples such as ``"x0.5"``.

    Raises UsageError for an unknown name, an unreadable file, and all of a file's wrong fields together.
    """
    changes = parse_settings(settings)
    if name == AUTO:
        return Draft(None, changes)
    if name in RECIPES:
        return Draft(RECIPES[name]().replace(**changes), changes)
    base, values = _read(name)
    if base == AUTO:
        return Draft(None, changed({"name": Path(name).stem, **settings_from(values, repr(name))}, changes))
    if base is not None:
        own = settings_from(values, repr(name))
        return Draft(RECIPES[base]().replace(**{"name": Path(name).stem, **own}).replace(**changes), changes)
    return Draft(recipe_from({"name": Path(name).stem, **values}).replace(**changes), changes)


def get_recipe(name: str) -> Recipe:
    """A built-in recipe by its name, or one from a TOML file, see :func:`draft_of`.

    Raises UsageError for what is none: ``auto``, and a file that extends it, have no fixed fields.
    """
    draft = draft_of(name)
    if draft.fixed is None:
        raise UsageError(f"recipe {name!r} has no fixed fields: it follows from the data and the budget")
    return draft.fixed


def _read(name: str) -> tuple[str | None, dict[str, object]]:
    """What a file extends, None for nothing, and the fields it gives."""
    if not name.endswith(".toml"):
        raise UsageError(_unknown(name))
    try:
        values = tomllib.loads(read_regular(name, MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"recipe file {name!r} cannot be read: {error}") from error
    except RecursionError as error:
        raise UsageError(f"recipe file {name!r} cannot be read: its values are nested too deeply") from error
    base = values.pop("extends", None)
    if base is not None and base not in recipe_names():
        raise UsageError(f"recipe file {name!r}: extends {base!r} must be one of {', '.join(recipe_names())}")
    return base, values


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"recipe {name!r} is unknown; {meant}use one of {', '.join(recipe_names())}, or a file that ends in .toml"
