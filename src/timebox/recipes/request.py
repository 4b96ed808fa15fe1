"""The recipe that a Python call asks for, as the texts that a command line would have."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from timebox.custom import CODE_FIELDS, OPTION_OF, check_importable, code_names, name_of, trust
from timebox.errors import UsageError
from timebox.recipes.builtin import RECIPES
from timebox.recipes.recipe import Recipe, Setting, Value, parse_settings
from timebox.recipes.spec import AUTO, RecipeSpec, parse_recipe

RecipeLike = str | Path | Recipe | RecipeSpec


def recipe_request(
    recipe: RecipeLike, settings: Sequence[str], code: Mapping[str, object], trust_code: bool = False
) -> dict[str, object]:
    """The options ``recipe`` and ``settings`` that stand for a recipe object and the user's code; the options of the
    code are None then. Code that is given, or named in settings, may be used in this process from now on.

    Args:
        code: the options ``network``, ``augment``, ``loss`` and ``optimizer`` that the verb has; None for none.
        trust_code: whether code that a recipe file or a recipe object names may be imported too.
    Raises:
        UsageError: for code that cannot be used.
    """
    with suppress(UsageError):  # reported with the other options
        trust(code_names(parse_settings(settings)).values())
    if isinstance(recipe, Recipe | RecipeSpec):
        recipe, own = _as_texts(recipe)
        settings = (*own, *settings)
    fields = {option: field for field, option in OPTION_OF.items()}
    given = {fields[option]: one for option, one in code.items() if one is not None}
    named = [f"{field}={name_of(one, field)}" for field, one in given.items()]
    if isinstance(settings, list | tuple):
        settings = (*settings, *named)
    if trust_code:
        with suppress(UsageError):
            trust(code_of(str(recipe), settings))
    return {"recipe": recipe, "settings": settings, **dict.fromkeys(code)}


def code_of(recipe: str, settings: Sequence[str]) -> list[str]:
    """The names of the user's code that a recipe with settings refers to. Raises UsageError for an invalid recipe."""
    return list(code_names(parse_recipe(recipe, settings).base.as_dict()).values())


def check_trial_code(recipe: str, settings: Sequence[str], trust_code: bool = False) -> None:
    """Raise UsageError for code in the recipe of trials that their processes cannot import, or may not."""
    names = code_of(recipe, settings)
    if trust_code:
        trust(names)
    check_importable(names)


def _as_texts(recipe: Recipe | RecipeSpec) -> tuple[str, tuple[str, ...]]:
    """A built-in recipe by name, the one that needs the fewest settings, and these settings."""
    if isinstance(recipe, RecipeSpec) and recipe.extends_auto:
        return AUTO, _settings(recipe.overrides)
    wanted = recipe.fixed if isinstance(recipe, RecipeSpec) else recipe
    assert wanted is not None
    values = wanted.as_dict()

    def changes(name: str) -> dict[str, Value]:
        own = RECIPES[name]().as_dict()
        return {key: value for key, value in values.items() if own[key] != value}

    base = min(RECIPES, key=lambda name: len(changes(name)))
    return base, _settings(changes(base))


def setting_text(value: Setting) -> str:
    """The text after ``FIELD=`` that stands for a value, all digits of a number included."""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def _settings(values: Mapping[str, Setting]) -> tuple[str, ...]:
    # Code first: it decides what the other fields may be.
    names = sorted(values, key=lambda name: name not in CODE_FIELDS)
    return tuple(f"{name}={setting_text(values[name])}" for name in names)
