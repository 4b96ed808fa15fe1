"""Questions about a recipe and a function's arguments that are answered before the data are read."""

import inspect
from collections.abc import Callable, Mapping, Sequence

from timebox.recipe import parse_recipe


def image_form(recipe: str, settings: Sequence[str]) -> tuple[int | None, str]:
    """The form of images that a recipe asks for: their side in pixels, None to follow the data, and the name of the
    method that makes them square.

    Raises UsageError for an unknown recipe or field.
    """
    recipe_so_far = parse_recipe(recipe, settings).base
    return recipe_so_far.image_size or None, recipe_so_far.image_fit


def arguments_given(function: Callable[..., object], arguments: Mapping[str, object]) -> set[str]:
    """Names of a function's arguments that are not left at their defaults."""
    parameters = inspect.signature(function).parameters
    return {name for name, parameter in parameters.items() if arguments[name] not in (parameter.default, [])}


def is_planned(recipe: str) -> bool:
    """Whether ``auto`` plans the recipe from the data, the hardware and the budget."""
    return parse_recipe(recipe).fixed is None
