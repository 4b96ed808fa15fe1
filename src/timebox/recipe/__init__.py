"""Recipes: what they are made of, the built-in ones, and finding one by name or file."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path

from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.recipe.auto import Task, auto_recipe
from timebox.recipe.builtin import RECIPES
from timebox.recipe.recipe import FIELDS, Recipe, Value, describe_field, parse_settings, recipe_from

__all__ = [
    "AUTO",
    "FIELDS",
    "RECIPES",
    "Recipe",
    "Task",
    "Value",
    "apply_settings",
    "auto_recipe",
    "describe_field",
    "describe_recipe",
    "get_recipe",
    "parse_settings",
    "recipe_from",
    "recipe_names",
]

AUTO = "auto"

MAX_FILE_BYTES = 16_384  # a whole recipe has 3,000; tomllib takes time by the square of a key's length


def recipe_names() -> list[str]:
    """Every name ``--recipe`` takes."""
    return [AUTO, *RECIPES]


def describe_recipe(name: str) -> str:
    """What a built-in recipe is, as its docstring says; the first line is a summary."""
    if name == AUTO:
        return (auto_recipe.__doc__ or "").strip()
    if name not in RECIPES:
        raise UsageError(_unknown(name))
    return (RECIPES[name].__doc__ or "").strip()


def get_recipe(name: str) -> Recipe:
    """A built-in recipe by its name, or one from a TOML file.

    A file gives every field, or names what it starts from with ``extends = "haet2021"`` and gives the others.

    Raises UsageError for an unknown name, an unreadable file, and all of a file's wrong fields together. ``auto`` is
    no fixed recipe: it takes a data set and a budget, see :func:`auto_recipe`.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name == AUTO:
        raise UsageError("recipe 'auto' has no fixed fields: it follows from the data and the budget")
    if not name.endswith(".toml"):
        raise UsageError(_unknown(name))
    try:
        values = tomllib.loads(read_regular(name, MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"recipe file {name!r} cannot be read: {error}") from error
    except RecursionError as error:
        raise UsageError(f"recipe file {name!r} cannot be read: its values are nested too deeply") from error
    base = values.pop("extends", None)
    if base is not None and base not in tuple(RECIPES):
        raise UsageError(f"recipe file {name!r}: extends {base!r} must be one of {', '.join(RECIPES)}")
    start = RECIPES[base]().as_dict() if base is not None else {}
    return recipe_from({**start, "name": Path(name).stem, **values})


def apply_settings(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with ``FIELD=VALUE`` texts applied; raises UsageError naming all that are wrong."""
    return recipe.replace(**parse_settings(settings)) if settings else recipe


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"recipe {name!r} is unknown; {meant}use one of {', '.join(recipe_names())}, or a file that ends in .toml"
