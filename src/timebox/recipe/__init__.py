"""Recipes: fields, built-in recipes, and how a recipe is read from a name, a TOML file and settings.

Every choice of a training is a field with a unit and a range. Nothing here imports torch, and values that depend on the
data or the hardware are chosen in ``planning``.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.paths import expand_user
from timebox.recipe.builtin import RECIPES, auto
from timebox.recipe.recipe import (
    FIELDS,
    Multiplier,
    Recipe,
    Setting,
    Value,
    describe_field,
    merge_settings,
    parse_settings,
    recipe_from,
    setting_from,
    settings_from_table,
    upgrade_fields,
)

__all__ = [
    "AUTO",
    "FIELDS",
    "RECIPES",
    "Multiplier",
    "Recipe",
    "RecipeSpec",
    "Setting",
    "Value",
    "describe_field",
    "describe_recipe",
    "get_recipe",
    "merge_settings",
    "parse_recipe",
    "parse_settings",
    "recipe_from",
    "recipe_names",
    "setting_from",
    "upgrade_fields",
]

AUTO = "auto"

MAX_FILE_BYTES = 16_384  # a complete recipe has 3,000; tomllib takes quadratic time in the length of a key


def recipe_names() -> list[str]:
    """All built-in names that ``--recipe`` accepts, ``auto`` first."""
    return [AUTO, *RECIPES]


def describe_recipe(name: str) -> str:
    """The docstring of a built-in recipe; its first line is a summary. Raises UsageError for an unknown name."""
    if name == AUTO:
        return (auto.__doc__ or "").strip()
    if name not in RECIPES:
        raise UsageError(_unknown(name))
    return (RECIPES[name].__doc__ or "").strip()


@dataclass(frozen=True)
class RecipeSpec:
    """A recipe as the user specified it, before data and budget are known.

    Attributes:
        fixed: the complete recipe; None if ``auto`` plans it.
        overrides: settings that ``auto`` must keep (values) or apply to the planned values (multipliers). For a fixed
            recipe: the settings already applied to it.
    """

    fixed: Recipe | None
    overrides: Mapping[str, Setting] = field(default_factory=dict)

    @property
    def base(self) -> Recipe:
        """The fixed recipe; for ``auto`` the recipe that planning starts from, with the overrides."""
        return self.fixed or auto().replace(**self.overrides)

    @property
    def image_form(self) -> tuple[int | None, str]:
        """The side in pixels to which images are resized, None to follow the data; and how images are made square."""
        return self.base.image_size or None, self.base.image_fit

    def is_fixed(self, name: str) -> bool:
        """Whether the user gave a value for the field ``name``, which planning must not change."""
        return name in self.overrides and not isinstance(self.overrides[name], Multiplier)


def parse_recipe(name: str, settings: Sequence[str] = ()) -> RecipeSpec:
    """Read a recipe by its name or from a TOML file, and apply ``FIELD=VALUE`` and ``FIELD=xFACTOR`` texts in order.

    A file has every field, or extends a recipe (``extends = "haet2021"`` or ``"auto"``) and has the fields that differ.

    Raises UsageError for an unknown name, an unreadable file, and all invalid fields of a file together.
    """
    overrides = parse_settings(settings)
    if name == AUTO:
        return RecipeSpec(None, overrides)
    if name in RECIPES:
        return RecipeSpec(RECIPES[name]().replace(**overrides), overrides)
    base, values = _read(name)
    if base is None:
        return RecipeSpec(recipe_from({"name": Path(name).stem, **values}).replace(**overrides), overrides)
    from_file = {"name": Path(name).stem, **settings_from_table(values, repr(name))}
    if base == AUTO:
        return RecipeSpec(None, merge_settings(from_file, overrides))
    return RecipeSpec(RECIPES[base]().replace(**from_file).replace(**overrides), overrides)


def get_recipe(name: str) -> Recipe:
    """A recipe by its name or from a TOML file. Raises UsageError for ``auto``, whose fields depend on the data."""
    spec = parse_recipe(name)
    if spec.fixed is None:
        raise UsageError(f"recipe {name!r} has no fixed fields: they depend on the data and the budget")
    return spec.fixed


def _read(name: str) -> tuple[str | None, dict[str, object]]:
    """Read a TOML file: the name of the recipe it extends, None for none, and its fields."""
    if not name.endswith(".toml"):
        raise UsageError(_unknown(name))
    try:
        values = tomllib.loads(read_regular(expand_user(name), MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "its values are nested too deeply" if isinstance(error, RecursionError) else error
        raise UsageError(f"recipe file {name!r} cannot be read: {reason}") from error
    base = values.pop("extends", None)
    if base is not None and base not in recipe_names():
        raise UsageError(f"recipe file {name!r}: extends {base!r} must be one of {', '.join(recipe_names())}")
    return base, values


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    names = ", ".join(recipe_names())
    return f"recipe {name!r} is unknown; {suggestion}use one of {names}, or a file that ends in .toml"
