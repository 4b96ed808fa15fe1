"""Recipes: fields, built-in recipes, and how a recipe is read from a name, a TOML file and settings.

Every choice of a training is a field with a unit and a range. Nothing here imports torch, and values that depend on the
data or the hardware are chosen in ``planning``.
"""

from timebox.recipes.builtin import RECIPES
from timebox.recipes.recipe import (
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
    upgrade_fields,
)
from timebox.recipes.request import RecipeLike, check_trial_code, code_of, recipe_request, setting_text
from timebox.recipes.spec import (
    AUTO,
    RecipeSpec,
    describe_recipe,
    get_recipe,
    parse_recipe,
    recipe_names,
)

__all__ = [
    "AUTO",
    "FIELDS",
    "RECIPES",
    "Multiplier",
    "Recipe",
    "RecipeLike",
    "RecipeSpec",
    "Setting",
    "Value",
    "check_trial_code",
    "code_of",
    "describe_field",
    "describe_recipe",
    "get_recipe",
    "merge_settings",
    "parse_recipe",
    "parse_settings",
    "recipe_from",
    "recipe_names",
    "recipe_request",
    "setting_from",
    "setting_text",
    "upgrade_fields",
]
