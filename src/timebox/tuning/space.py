"""Which fields of a recipe are searched, and where."""

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

from timebox.errors import UsageError
from timebox.files import read_regular
from timebox.recipe import FIELDS, Multiplier, Recipe, RecipeSpec, Value, setting_from

MAX_FILE_BYTES = 65_536
TIMES, WITHIN, AMONG = "times", "within", "among"


@dataclass(frozen=True)
class Dimension:
    """A field that is searched.

    Attributes:
        distribution: of the field's values; where ``is_multiple``, of the multiples of what is planned.
    """

    name: str
    distribution: BaseDistribution
    is_multiple: bool

    def setting(self, value: Value) -> str:
        """The setting that a value found stands for, three digits of it: more are noise, and unpleasant to read."""
        is_drawn = isinstance(value, float) and not isinstance(self.distribution, CategoricalDistribution)
        text = f"{value:.3g}" if is_drawn else str(value).lower() if isinstance(value, bool) else str(value)
        return f"{self.name}=x{text}" if self.is_multiple else f"{self.name}={text}"

    def suggested(self, trial: optuna.Trial) -> Value:
        """The value that a trial is to try."""
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return trial.suggest_categorical(self.name, choices)  # type: ignore[return-value]
            case FloatDistribution(low=low, high=high, log=log):
                return trial.suggest_float(self.name, low, high, log=log)
            case IntDistribution(low=low, high=high):
                return trial.suggest_int(self.name, low, high)
        raise AssertionError(self.distribution)

    def neutral(self, recipe: Recipe) -> Value:
        """What comes closest to leaving the field as a recipe has it."""
        value = 1.0 if self.is_multiple else getattr(recipe, self.name)
        match self.distribution:
            case CategoricalDistribution(choices=choices):
                return value if value in choices else choices[0]  # type: ignore[return-value]
            case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
                return type(low)(min(high, max(low, value)))
        raise AssertionError(self.distribution)


@dataclass(frozen=True)
class Space:
    """The fields that are searched, those that others depend on first."""

    dimensions: tuple[Dimension, ...]

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """By field."""
        return {dimension.name: dimension.distribution for dimension in self.dimensions}

    def settings(
        self, params: Mapping[str, Value], moved: Collection[str] | None = None, before: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """The settings that values stand for, multiples of 1 left out.

        Args:
            moved: the fields that differ from what ``before`` stands for; None for all.
        """
        kept = {setting.partition("=")[0]: setting for setting in before}
        for dimension in self.dimensions:
            if moved is None or dimension.name in moved:
                value = params[dimension.name]
                kept[dimension.name] = "" if dimension.is_multiple and value == 1.0 else dimension.setting(value)
        return tuple(kept[dimension.name] for dimension in self.dimensions if kept.get(dimension.name))

    def neutral(self, recipe: Recipe) -> dict[str, Value]:
        """What comes closest to leaving all as a recipe has it."""
        return {dimension.name: dimension.neutral(recipe) for dimension in self.dimensions}

    def probes(self, neutral: Mapping[str, Value]) -> list[tuple[str, dict[str, Value]]]:
        """A field and the values to begin a search with: one field at a time, down and up by half of its range of
        multiples. A start that is far off in one or two fields shows it here."""
        probes: list[tuple[str, dict[str, Value]]] = []
        for dimension in self.dimensions:
            match dimension.distribution:
                case FloatDistribution(low=low, high=high, log=True) if dimension.is_multiple and high / low >= WIDE:
                    probes += [
                        (dimension.name, {**neutral, dimension.name: value})
                        for value in (math.sqrt(low), math.sqrt(high))
                    ]
        return probes

    def to_json(self) -> list[dict[str, object]]:
        """Ready for JSON; read back by :meth:`from_json`."""
        return [
            {"name": one.name, "is_multiple": one.is_multiple, "distribution": distribution_to_json(one.distribution)}
            for one in self.dimensions
        ]

    @classmethod
    def from_json(cls, values: Sequence[Mapping[str, object]]) -> "Space":
        """From what :meth:`to_json` gave."""
        return cls(
            tuple(
                Dimension(str(one["name"]), json_to_distribution(str(one["distribution"])), bool(one["is_multiple"]))
                for one in values
            )
        )


# Every trial sees the images as they were read.
NOT_SEARCHED = ("name", "image_size", "image_fit", "tta")
LARGEST = 1e9
# Multiples are probed one by one where the largest is so many times the least.
WIDE = 15.0


def default_space(draft: RecipeSpec) -> Space:
    """Every field whose declaration says where to search, as far as the network leaves a choice."""
    return Space(tuple(dimension for name in FIELDS if (dimension := _declared(name)) and _is_free(dimension, draft)))


def read_space(path: str) -> Space:
    """A space from a TOML file: a table for each field, with one of ``times = [0.25, 4]`` (multiples of what is
    planned, evenly in their logarithm), ``within = [0.0, 0.4]`` (values) and ``among = ["none", "random"]``.

    Raises UsageError naming all that is wrong.
    """
    try:
        tables = tomllib.loads(read_regular(path, MAX_FILE_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"space {path!r} cannot be read: {error}") from error
    problems: list[str] = []
    dimensions = []
    for name, table in tables.items():
        try:
            dimensions.append(_dimension(name, table))
        except UsageError as error:
            problems.append(str(error))
    if not tables:
        problems.append("it names no field")
    if problems:
        raise UsageError(f"space {path!r}: " + "; ".join(problems))
    return Space(tuple(sorted(dimensions, key=lambda dimension: list(FIELDS).index(dimension.name))))


def _declared(name: str) -> Dimension | None:
    field = FIELDS[name]
    if field.search_factor:
        return _dimension(name, {TIMES: [1 / field.search_factor, field.search_factor]})
    if field.search_range:
        return _dimension(name, {WITHIN: list(field.search_range)})
    return _dimension(name, {AMONG: list(field.search_choices)}) if field.search_choices else None


def _is_free(dimension: Dimension, draft: RecipeSpec) -> bool:
    """Whether a field may differ from what it is, and does anything."""
    if draft.base.optimizer != "muon" and dimension.name.startswith("filter_"):
        return False
    match dimension.distribution:
        case CategoricalDistribution(choices=choices):
            values: tuple[object, ...] = choices
        case FloatDistribution(low=low, high=high) | IntDistribution(low=low, high=high):
            values = (low, high)
    own = getattr(draft.base, dimension.name)
    for value in values:
        try:
            setting = setting_from(dimension.name, f"x{value:g}" if dimension.is_multiple else value)
            if getattr(draft.base.replace(**{dimension.name: setting}), dimension.name) != own:
                return True
        except UsageError:
            continue
    return False


def _dimension(name: str, table: object) -> Dimension:
    """Raises UsageError saying what is wrong with a field's table."""
    if name not in FIELDS:
        setting_from(name, None)
    if name in NOT_SEARCHED:
        raise UsageError(f"{name} cannot be searched: trials have the same images, and are judged in one view")
    if not isinstance(table, dict) or len(table) != 1 or not set(table) <= {TIMES, WITHIN, AMONG}:
        raise UsageError(f"{name} must have one of times = [0.5, 2], within = [0, 1] and among = [...]")
    ((kind, values),) = table.items()
    if kind == AMONG:
        return Dimension(name, CategoricalDistribution(_choices(name, values)), False)
    if not isinstance(values, list) or len(values) != 2 or not all(type(value) in (int, float) for value in values):
        raise UsageError(f"{name}: {kind} must be two numbers, the least and the most")
    low, high = values
    if max(abs(low), abs(high)) > LARGEST:
        raise UsageError(f"{name}: {kind} has a number that no field takes")
    if not low < high:
        raise UsageError(f"{name}: {kind} [{low:g}, {high:g}] is empty: the first must be below the second")
    if kind == TIMES:
        for value in (low, high):
            if not isinstance(setting_from(name, f"x{value:f}"), Multiplier):
                raise UsageError(f"{name} is no number: it has no multiples")
        return Dimension(name, FloatDistribution(float(low), float(high), log=True), True)
    match setting_from(name, low), setting_from(name, high):
        case int() as least, int() as most:
            return Dimension(name, IntDistribution(least, most), False)
        case float() as least, float() as most:
            return Dimension(name, FloatDistribution(least, most), False)
    raise AssertionError(values)


def _choices(name: str, values: object) -> list[Value]:
    if not isinstance(values, list) or len(values) < 2:
        raise UsageError(f"{name}: among must be a list of two values or more")
    choices = []
    for value in values:
        setting = setting_from(name, value)
        if isinstance(setting, Multiplier):
            raise UsageError(f"{name}: among takes values, not multiples such as {value!r}; use times")
        choices.append(setting)
    return choices
