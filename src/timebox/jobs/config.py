"""Properties of a recipe that are known before the data are read."""

from collections.abc import Sequence

from timebox.recipe import parse_recipe


def image_form(recipe: str, settings: Sequence[str]) -> tuple[int | None, str]:
    """The side in pixels to which a recipe brings images, None to follow the data, and how images are made square.

    Raises UsageError for an unknown recipe or field.
    """
    base = parse_recipe(recipe, settings).base
    return base.image_size or None, base.image_fit


def is_planned(recipe: str) -> bool:
    """Whether ``auto`` plans the recipe from the data, the hardware and the budget."""
    return parse_recipe(recipe).fixed is None
