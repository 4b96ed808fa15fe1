"""A recipe as the user asks for it: by name, from a TOML file, and with settings."""

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timebox.custom import CODE_FIELDS, is_code, name_of, trust
from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.paths import expand_user
from timebox.recipes.builtin import RECIPES, auto
from timebox.recipes.recipe import (
    FIXED_FOR_CODE,
    Multiplier,
    Recipe,
    Setting,
    merge_settings,
    parse_settings,
    recipe_from,
    settings_from_table,
)

AUTO = "auto"
# What `auto` is for a network of the user's, whose size it cannot choose.
FOR_OWN_NETWORKS = "adamw"

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
        fits_data: whether a fixed recipe was chosen for a network of the user's, so that planning fits its learning
            rate and augmentation to the data where ``overrides`` do not say otherwise.
    """

    fixed: Recipe | None
    overrides: Mapping[str, Setting] = field(default_factory=dict)
    fits_data: bool = False

    @property
    def base(self) -> Recipe:
        """The fixed recipe; for ``auto`` the recipe that planning starts from, with the overrides."""
        return self.fixed or auto().replace(**self.overrides)

    @property
    def extends_auto(self) -> bool:
        """Whether it is ``auto`` with the overrides."""
        return self.fixed is None or self.fits_data

    @property
    def image_form(self) -> tuple[int | None, str]:
        """The side in pixels to which images are resized, None to follow the data; and how images are made square."""
        return self.base.image_size or None, self.base.image_fit

    def is_fixed(self, name: str) -> bool:
        """Whether the user gave a value for the field ``name``, which planning must not change."""
        return name in self.overrides and not isinstance(self.overrides[name], Multiplier)

    def replace(self, **changes: Setting) -> "RecipeSpec":
        """A copy with further settings. Raises UsageError for invalid ones."""
        return _spec(self.fixed, merge_settings(self.overrides, _checked(changes)), self.fits_data)

    def to_toml(self) -> str:
        """TOML that parses to an equal specification: the settings on top of ``auto``, or a complete recipe."""
        if self.fixed is not None and not self.extends_auto:
            return self.fixed.to_toml()
        import tomli_w  # imported here because training works without it

        values = {name: str(one) if isinstance(one, Multiplier) else one for name, one in self.overrides.items()}
        return tomli_w.dumps({"extends": AUTO, **values})


def recipe(name: str = AUTO, **fields: Setting | Callable[..., Any]) -> "Recipe | RecipeSpec":
    """A built-in recipe, or one from a TOML file, with some fields changed; to be given as ``recipe=``.

    Args:
        name: ``auto``, a name of :func:`recipe_names`, or a path that ends in ``.toml``.
        fields: values by field, as in ``max_lr=0.4``, or ``max_lr="x2"`` for twice the value. ``model``, ``augment``,
            ``loss`` and ``optimizer`` may be code of yours.
    Returns:
        A complete :class:`Recipe`; for ``auto`` a :class:`RecipeSpec`, whose given fields stay as they are while the
        rest is planned around them.
    Raises:
        UsageError: for an unknown name or field, or an invalid value.

    >>> import timebox
    >>> timebox.recipe("airbench94", width=32).width
    32
    """
    spec = parse_recipe(name)
    named = {key: name_of(one, key) if callable(one) and key in CODE_FIELDS else one for key, one in fields.items()}
    trust(named.values())
    changed = _spec(spec.fixed, merge_settings(spec.overrides, _checked(named)), spec.fits_data)
    return changed if changed.fixed is None or changed.extends_auto else changed.fixed


def _checked(values: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings, each validated. Raises UsageError that lists all invalid ones."""
    return settings_from_table(values, "settings")


def _spec(fixed: Recipe | None, overrides: Mapping[str, Setting], fits_data: bool) -> RecipeSpec:
    """The specification of a recipe with settings; without a recipe, or with one chosen for a network of the user's,
    that of ``auto``."""
    if fixed is None or fits_data:
        return _auto_spec(overrides)
    return RecipeSpec(_with_code(fixed, overrides), overrides)


def parse_recipe(name: str, settings: Sequence[str] = ()) -> RecipeSpec:
    """Read a recipe by its name or from a TOML file, and apply ``FIELD=VALUE`` and ``FIELD=xFACTOR`` texts in order.

    A file has every field, or extends a recipe (``extends = "haet2021"`` or ``"auto"``) and has the fields that differ.

    Raises UsageError for an unknown name, an unreadable file, and all invalid fields of a file together.
    """
    overrides = parse_settings(settings)
    if name == AUTO:
        return _auto_spec(overrides)
    if name in RECIPES:
        return _spec(RECIPES[name](), overrides, False)
    base, values = _read(name)
    if base is None:
        return _spec(recipe_from({"name": Path(name).stem, **values}), overrides, False)
    from_file = {"name": Path(name).stem, **settings_from_table(values, f"recipe {name!r}")}
    if base == AUTO:
        return _auto_spec(merge_settings(from_file, overrides))
    return _spec(_with_code(RECIPES[base](), from_file), overrides, False)


def _auto_spec(overrides: Mapping[str, Setting]) -> RecipeSpec:
    """``auto``; with a network of the user's, the recipe for those."""
    if is_code(overrides.get("model")):
        return RecipeSpec(_with_code(RECIPES[FOR_OWN_NETWORKS](), overrides), overrides, fits_data=True)
    if is_code(overrides.get("optimizer")):
        overrides = {"max_lr": 1.0, **overrides}
    if is_code(overrides.get("loss")):  # which may take labels as numbers only
        overrides = {"mixup": 0.0, **overrides}
    return RecipeSpec(None, overrides)


def _with_code(recipe: Recipe, changes: Mapping[str, Setting]) -> Recipe:
    """A recipe with changes. A network of the user's has none of the fields of the built-in ones, and an optimizer of
    the user's has its own rates, times 1 at most where the changes do not say otherwise."""
    implied: dict[str, Setting] = {}
    if is_code(changes.get("model")) and not is_code(recipe.model):
        implied |= FIXED_FOR_CODE
    if is_code(changes.get("optimizer")) and not is_code(recipe.optimizer):
        implied["max_lr"] = 1.0
    return recipe_from(merge_settings({**recipe.as_dict(), **implied}, changes))


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
