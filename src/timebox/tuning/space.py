"""The search space: recipe fields and Optuna distributions of their values, by default or from a TOML file."""

import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from timebox.custom import code_names
from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.recipes import FIELDS, Multiplier, Recipe, RecipeSpec, Value, setting_from

MAX_FILE_BYTES = 65_536
# Keys of the tables in a space file.
TIMES, WITHIN, AMONG = "times", "within", "among"
# Not searched: all trials share the decoded images, and are scored without test-time augmentation.
FIXED_FIELDS = ("name", "image_size", "image_fit", "tta")
# Fields that code of the user's does without, by the field that names it.
REPLACED_BY_CODE = {
    "model": ("width",),
    "augment": (),
    "loss": ("label_smoothing",),
    "optimizer": ("weight_decay", "bias_lr_multiplier"),
}
MAX_NUMBER = 1e9
# Least ratio of the bounds of a multiple that is screened.
MIN_SCREENED_RATIO = 15.0


@dataclass(frozen=True)
class Space:
    """The searched fields, in the order of the recipe's fields.

    Attributes:
        distributions: Optuna's distribution of each field's values; logarithmic ones are of multiples of the planned
            value.
    """

    distributions: dict[str, BaseDistribution]

    def is_multiple(self, name: str) -> bool:
        """Whether the values of a field are multiples of the planned value."""
        return getattr(self.distributions[name], "log", False)

    def suggest(self, trial: optuna.Trial) -> dict[str, Value]:
        """The values of a trial by field, from Optuna."""
        return {name: _suggest(trial, name, distribution) for name, distribution in self.distributions.items()}

    def start_values(self, recipe: Recipe) -> dict[str, Value]:
        """The values closest to a recipe's, by field."""
        return {
            name: _closest(1.0 if self.is_multiple(name) else getattr(recipe, name), distribution)
            for name, distribution in self.distributions.items()
        }

    def settings(
        self, params: Mapping[str, Value], fields: Collection[str] | None = None, parent: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """The ``--set`` texts of values, with three significant digits, without multiples of 1.

        Args:
            fields: those that take their value from ``params``; None for all.
            parent: settings of the other fields.
        """
        settings = {setting.partition("=")[0]: setting for setting in parent}
        for name in self.distributions if fields is None else fields:
            settings[name] = "" if self.is_multiple(name) and params[name] == 1.0 else self._setting(name, params[name])
        return tuple(settings[name] for name in self.distributions if settings.get(name))

    def _setting(self, name: str, value: Value) -> str:
        is_drawn = isinstance(value, float) and not isinstance(self.distributions[name], CategoricalDistribution)
        text = f"{value:.3g}" if is_drawn else str(value).lower() if isinstance(value, bool) else str(value)
        return f"{name}=x{text}" if self.is_multiple(name) else f"{name}={text}"

    def screening_trials(self, start: Mapping[str, Value]) -> list[tuple[str, dict[str, Value]]]:
        """One-factor-at-a-time trials: a field's name, and start values in which this field alone differs.

        Each multiple with a wide range is tried at the square roots of its lower and its upper bound, which shows a
        start that is far off in one or two fields.
        """
        trials: list[tuple[str, dict[str, Value]]] = []
        for name, distribution in self.distributions.items():
            match distribution:
                case FloatDistribution(low=low, high=high, log=True) if high / low >= MIN_SCREENED_RATIO:
                    trials += [(name, {**start, name: math.sqrt(bound)}) for bound in (low, high)]
        return trials

    def to_json(self) -> list[dict[str, object]]:
        """Plain values for JSON; read back by :meth:`from_json`."""
        return [
            {"name": name, "is_multiple": self.is_multiple(name), "distribution": distribution_to_json(distribution)}
            for name, distribution in self.distributions.items()
        ]

    @classmethod
    def from_json(cls, values: Sequence[Mapping[str, object]]) -> "Space":
        """The space that :meth:`to_json` wrote."""
        return cls({str(one["name"]): json_to_distribution(str(one["distribution"])) for one in values})


def default_space(draft: RecipeSpec) -> Space:
    """All fields whose declaration has a search range, but for those without effect in the draft's recipe."""
    ranges = {
        name: {TIMES: [1 / field.search_factor, field.search_factor]} if field.search_factor
        else {WITHIN: list(field.search_range)} if field.search_range
        else {AMONG: list(field.search_choices)}
        for name, field in FIELDS.items()
        if field.search_factor or field.search_range or field.search_choices
    }  # fmt: skip
    space = Space({name: _parse_distribution(name, table) for name, table in ranges.items()})
    return Space({name: values for name, values in space.distributions.items() if _has_effect(space, name, draft)})


def read_space(path: str) -> Space:
    """Read a space from a TOML file: a table per field, with one of ``times = [0.25, 4]`` (multiples of the planned
    value, log-uniform), ``within = [0.0, 0.4]`` (uniform values) and ``among = ["none", "random"]``.

    Raises:
        UsageError: with all problems of the file.
    """
    try:
        tables = tomllib.loads(read_regular(path, MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"space {path!r} cannot be read: {error}") from error
    problems: list[str] = [] if tables else ["it names no field"]
    distributions = {}
    for name, table in tables.items():
        try:
            distributions[name] = _parse_distribution(name, table)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(f"space {path!r}: " + "; ".join(problems))
    return Space({name: distributions[name] for name in FIELDS if name in distributions})


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> Value:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)  # type: ignore[return-value]
        case FloatDistribution(low=low, high=high, log=log):
            return trial.suggest_float(name, low, high, log=log)
        case IntDistribution(low=low, high=high):
            return trial.suggest_int(name, low, high)
    raise AssertionError(distribution)


def _closest(value: Value, distribution: BaseDistribution) -> Value:
    """The value of a distribution that is closest to another one; the first of choices without that one."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return value if value in choices else choices[0]  # type: ignore[return-value]
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            return type(low)(min(high, max(low, value)))
    raise AssertionError(distribution)


def _has_effect(space: Space, name: str, draft: RecipeSpec) -> bool:
    """Whether any value of a field is valid for the draft's recipe and changes it."""
    if draft.base.optimizer != "muon" and name.startswith("filter_"):
        return False
    if any(name in REPLACED_BY_CODE[field] for field in code_names(draft.base.as_dict())):
        return False
    match space.distributions[name]:
        case CategoricalDistribution(choices=choices):
            values: tuple[object, ...] = choices
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            values = (low, high)
    own = getattr(draft.base, name)
    for value in values:
        try:
            setting = setting_from(name, f"x{value:g}" if space.is_multiple(name) else value)
            if getattr(draft.base.replace(**{name: setting}), name) != own:
                return True
        except UsageError:
            continue
    return False


def _parse_distribution(name: str, table: object) -> BaseDistribution:
    """The distribution of a field's TOML table. Raises UsageError."""
    if name not in FIELDS:
        setting_from(name, None)  # raises, with the closest name
    if name in FIXED_FIELDS:
        raise UsageError(f"{name} cannot be searched: all trials have the same images and no test-time augmentation")
    if not isinstance(table, dict) or len(table) != 1 or not set(table) <= {TIMES, WITHIN, AMONG}:
        raise UsageError(f"{name} must have one of times = [0.5, 2], within = [0, 1] and among = [...]")
    ((kind, values),) = table.items()
    if kind == AMONG:
        return CategoricalDistribution(_parse_choices(name, values))
    if not isinstance(values, list) or len(values) != 2 or not all(type(value) in (int, float) for value in values):
        raise UsageError(f"{name}: {kind} must be two numbers, the lower and the upper bound")
    low, high = values
    if max(abs(low), abs(high)) > MAX_NUMBER:
        raise UsageError(f"{name}: {kind} has a number that no field takes")
    if not low < high:
        raise UsageError(f"{name}: {kind} [{low:g}, {high:g}] is empty: the first must be below the second")
    if kind == TIMES:
        if not all(isinstance(setting_from(name, f"x{value:f}"), Multiplier) for value in values):
            raise UsageError(f"{name} is not a number: it has no multiples")
        return FloatDistribution(float(low), float(high), log=True)
    match setting_from(name, low), setting_from(name, high):
        case int() as least, int() as most:
            return IntDistribution(least, most)
        case float() as least, float() as most:
            return FloatDistribution(least, most)
    raise AssertionError(values)


def _parse_choices(name: str, values: object) -> list[Value]:
    if not isinstance(values, list) or len(values) < 2:
        raise UsageError(f"{name}: among must be a list of two values or more")
    choices = []
    for value in values:
        setting = setting_from(name, value)
        if isinstance(setting, Multiplier):
            raise UsageError(f"{name}: among takes values, not multiples such as {value!r}; use times")
        choices.append(setting)
    return choices
