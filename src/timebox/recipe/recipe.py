"""A recipe: everything that decides how a network is trained, except the data, the hardware and the budget."""

import dataclasses
import difflib
import math
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from timebox.errors import UsageError

_MAX_BITS = 256  # of a whole number: a larger one neither becomes a float nor is pleasant to read
_MAX_TEXT = 1000  # characters of a number or a truth value
_TIMES = re.compile(r"x\s*(\d{1,9}(?:\.\d{0,9})?(?:e[+-]?\d{1,2})?|\.\d{1,9})", re.IGNORECASE)

Value = bool | int | float | str


@dataclass(frozen=True)
class Multiplier:
    """A multiple of what a field would be without it, written ``x0.5``: it keeps its meaning where budget or hardware
    change what is planned."""

    factor: float

    def of(self, name: str, value: float) -> float:
        """The multiple of a field's value, within what the field may be, whole where the field is."""
        field = FIELDS[name]
        multiple = min(field.high, max(field.low, self.factor * value))
        return round(multiple) if _TYPES[name] is int else multiple

    def __str__(self) -> str:
        return f"x{self.factor:g}"


Setting = Value | Multiplier


@dataclass(frozen=True)
class Field:
    """What a recipe field means, what it may be, and where a search for better recipes looks.

    Attributes:
        unit: in words.
        low, high: the closed range of a number.
        times: searched from a multiple of 1 / times to one of so many times what is planned; 0 for not so.
        within: searched from the first to the second of these values.
        among: searched among these.
        before: the value that reproduces recipes written before the field existed; None for the fields of timebox
            0.1.0, which every recipe gives.
        formerly: the field's name in earlier versions, whose files can still be read.
    """

    unit: str
    low: float = 0
    high: float = 0
    times: float = 0
    within: tuple[float, float] | None = None
    among: tuple[str, ...] = ()
    before: Value | None = None
    formerly: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete set of training choices, checked when it is made.

    Raises UsageError naming every value that is out of its range and every pair that does not go together.
    """

    name: Annotated[str, Field("what the recipe is called")]

    model: Annotated[Literal["resnet9", "resnet18", "airbench"], Field("network")]
    ensemble_size: Annotated[
        int, Field("networks trained side by side, whose probabilities are averaged", 1, 64, formerly="members")
    ]
    width: Annotated[int, Field("channels of the network's first stage", 4, 512, times=1.5)]
    input_scale: Annotated[
        float, Field("factor on the sides of images at the network's entry; airbench only", 0.1, 4, times=1.3)
    ]
    blur_pool: Annotated[bool, Field("whether maxima are averaged where the network halves images; airbench only")]
    whitening: Annotated[bool, Field("fixed whitening convolution first; airbench passes patches on without it")]
    whitening_bias_until: Annotated[float, Field("share of the training its bias learns in; airbench only", 0, 1)]
    identity_init: Annotated[bool, Field("whether 3x3 convolutions start by passing their inputs on")]
    celu_alpha: Annotated[float, Field("CELU's alpha in resnet9; 0 for resnet18's ReLU and airbench's GELU", 0, 10)]
    ghost_size: Annotated[int, Field("images per batch-norm group, 0 for the whole batch, as in resnet18", 0, 65536)]
    logit_scale: Annotated[float, Field("factor on the logits; 1 for resnet18", 0.001, 10)]

    batch_size: Annotated[int, Field("images per step", 2, 65536, times=8)]
    min_steps: Annotated[int, Field("a budget that buys fewer steps has the batch and the rate halved", 1, 10**6)]
    optimizer: Annotated[Literal["sgd", "muon"], Field("of the convolutions' filters; all else is under sgd")]
    filter_lr: Annotated[
        float, Field("muon's highest rate: the share of a filter bank a step may change", 1e-6, 10, times=4)
    ]
    filter_momentum: Annotated[float, Field("muon's Nesterov momentum", 0.01, 0.999, within=(0.4, 0.9))]
    policy: Annotated[
        Literal["one_cycle", "triangular", "piecewise", "constant"],
        Field("learning-rate policy", among=("one_cycle", "triangular", "piecewise")),
    ]
    max_lr: Annotated[float, Field("sgd's highest learning rate, on the mean loss of a batch", 1e-6, 10_000, times=16)]
    start_fraction: Annotated[float, Field("first learning rate, as a share of max_lr", 0, 1)]
    end_fraction: Annotated[float, Field("last learning rate, as a share of max_lr", 0, 1)]
    peak_at: Annotated[float, Field("progress at which the rate peaks, below down_at", 0, 1)]
    down_at: Annotated[float, Field("progress at which one_cycle is back at its start, piecewise at its end", 0, 1)]
    num_cycles: Annotated[int, Field("triangles of the triangular policy", 1, 1000)]
    max_momentum: Annotated[float, Field("Nesterov momentum while the rate is lowest", 0.01, 0.999)]
    min_momentum: Annotated[float, Field("and while it peaks, under one_cycle and triangular", 0.01, 0.999)]
    weight_decay: Annotated[float, Field("L2 penalty added to the gradient", 0, 1, times=8)]
    bias_lr_multiplier: Annotated[float, Field("learning rate of biases, as a multiple of max_lr", 0.01, 1000, times=4)]
    label_smoothing: Annotated[float, Field("share of the target spread over all classes", 0, 0.9, within=(0, 0.4))]
    class_balance: Annotated[
        float, Field("1 lets all classes count alike, 0 all images, between them the rare ones more", 0, 1)
    ]
    averaging_span: Annotated[
        float, Field("weights are averaged over this share of the training, 0 for none", 0, 1, within=(0, 0.5))
    ]

    image_size: Annotated[int, Field("side images are brought to in pixels, 0 to follow the data", 0, 1024)]
    image_fit: Annotated[Literal["crop", "letterbox"], Field("how images of another shape become square")]
    start_size: Annotated[
        float, Field("side of the first training images, as a share of the full one", 0.25, 1, within=(0.5, 1))
    ]
    full_size_at: Annotated[float, Field("progress from which training images are whole", 0, 0.9, within=(0.2, 0.8))]
    crop_padding: Annotated[int, Field("largest shift of the training crop in pixels", 0, 64, times=2)]
    flip: Annotated[Literal["none", "random", "alternating"], Field("mirroring of training images")]
    cutout_size: Annotated[
        int, Field("side of the square blanked in training images in pixels, 0 for none", 0, 1024, within=(0, 16))
    ]
    mixup: Annotated[
        float, Field("share of training images blended with another, as their labels are", 0, 1, within=(0, 0.8))
    ]
    mixup_until: Annotated[float, Field("progress after which none is blended", 0, 1, within=(0.5, 1))]
    tta: Annotated[Literal["none", "mirror", "shift", "mirror_shift"], Field("views averaged when scoring")]

    def __post_init__(self) -> None:
        problems = [problem for name in FIELDS if (problem := _problem(name, getattr(self, name)))]
        problems = problems or self._conflicts()
        if problems:
            raise UsageError(f"recipe {self.name!r}: " + "; ".join(problems))

    def _conflicts(self) -> list[str]:
        conflicts = []
        if self.peak_at >= self.down_at:
            conflicts.append(f"peak_at {self.peak_at:g} must be below down_at {self.down_at:g}")
        if self.min_momentum > self.max_momentum:
            conflicts.append(f"min_momentum {self.min_momentum:g} must not be above max_momentum {self.max_momentum:g}")
        if 0 < self.image_size < 8:
            conflicts.append(f"image_size {self.image_size} must be 0 or at least 8")
        if self.ghost_size == 1:
            conflicts.append("ghost_size 1 must be 0 or at least 2: one image has no spread to normalise by")
        if self.model == "resnet9" and self.celu_alpha == 0:
            conflicts.append("celu_alpha 0 must be above 0 for resnet9")
        conflicts += [
            f"{name} must be {_text(value)} for {self.model}"
            for name, value in _FIXED[self.model].items()
            if getattr(self, name) != value
        ]
        return conflicts

    def replace(self, **changes: Setting) -> "Recipe":
        """A copy with some fields changed, to a value or to a multiple of their own; checked again."""
        return recipe_from(changed(self.as_dict(), changes))

    def as_dict(self) -> dict[str, Value]:
        """Every field and its value, in the order they are declared."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """The whole recipe as TOML, each field with its unit and range; reads back equal."""
        import tomli_w  # not needed for training, and not everywhere where that is done

        lines = []
        for name, value in self.as_dict().items():
            entry = tomli_w.dumps({name: value}).strip()
            lines.append(f"{entry:<28} # {describe_field(name)}")
        return "\n".join(lines) + "\n"


# What a network leaves no choice about.
_FIXED: dict[str, dict[str, Value]] = {
    "resnet9": {"whitening_bias_until": 0.0, "input_scale": 1.0, "blur_pool": False},
    "resnet18": {
        "whitening": False,
        "input_scale": 1.0,
        "blur_pool": False,
        "whitening_bias_until": 0.0,
        "celu_alpha": 0.0,
        "ghost_size": 0,
        "logit_scale": 1.0,
    },
    "airbench": {"celu_alpha": 0.0},
}

_HINTS = get_type_hints(Recipe, include_extras=True)
FIELDS: dict[str, Field] = {field.name: get_args(_HINTS[field.name])[1] for field in dataclasses.fields(Recipe)}
_TYPES: dict[str, object] = {name: get_args(_HINTS[name])[0] for name in FIELDS}


def present_name(name: str) -> str:
    """What a field is called now."""
    return next((now for now, field in FIELDS.items() if field.formerly == name), name)


def present_fields(values: Mapping[str, object]) -> dict[str, object]:
    """A whole recipe of this or an earlier version in the fields of this one: those that it lacks because they are
    newer are added, as they were before; what is no field stays."""
    before = {name: field.before for name, field in FIELDS.items() if field.before is not None}
    return before | {present_name(name): value for name, value in values.items()}


def recipe_from(values: Mapping[str, object]) -> Recipe:
    """A recipe from a value for every field; one that an earlier version wrote may lack the fields that are newer.

    Raises UsageError naming all unknown fields, each with the likely one meant, all missing ones and all bad values.
    """
    values = present_fields(values)
    problems = [_unknown(name) for name in values if name not in FIELDS]
    missing = [name for name in FIELDS if name not in values]
    if missing:
        problems.append("missing: " + ", ".join(missing))
    known = {name: _widened(name, value) for name, value in values.items() if name in FIELDS}
    problems += [problem for name, value in known.items() if (problem := _problem(name, value))]
    if problems:
        raise UsageError(f"recipe {str(values.get('name', 'custom'))!r}: " + "; ".join(problems))
    return Recipe(**known)  # type: ignore[arg-type]  # _problem has just checked every type


def changed(values: Mapping[str, Setting], changes: Mapping[str, Setting]) -> dict[str, Setting]:
    """Values of fields after changes to some: a multiple is one of what is there, or stays one where nothing is."""
    result = dict(values)
    for name, change in changes.items():
        before = result.get(name)
        if isinstance(change, Multiplier) and isinstance(before, Multiplier):
            change = Multiplier(change.factor * before.factor)
        elif isinstance(change, Multiplier) and isinstance(before, int | float):
            change = change.of(name, before)
        result[name] = change
    return result


def parse_settings(settings: Iterable[str]) -> dict[str, Setting]:
    """What ``FIELD=VALUE`` and ``FIELD=xFACTOR`` texts say, one after the other, each value of its field's type.

    Raises UsageError naming all that are wrong.
    """
    values: dict[str, Setting] = {}
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = present_name(name.strip())
        if not equals:
            problems.append(f"{setting!r} is not FIELD=VALUE")
        else:
            try:
                values = changed(values, {name: setting_from(name, _parse(name, text.strip()))})
            except UsageError as error:
                problems.append(str(error))
    if problems:
        raise UsageError("settings: " + "; ".join(problems))
    return values


def settings_from(values: Mapping[str, object], where: str) -> dict[str, Setting]:
    """The settings in a table of them. Raises UsageError naming all that are wrong."""
    settings: dict[str, Setting] = {}
    problems = []
    for name, given in values.items():
        try:
            present = present_name(name)
            settings[present] = setting_from(present, given)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(f"recipe {where}: " + "; ".join(problems))
    return settings


def setting_from(name: str, given: object) -> Setting:
    """A field's setting: a value of its type, or a text such as ``x0.5``. Raises UsageError saying what is wrong."""
    if name not in FIELDS:
        raise UsageError(_unknown(name))
    if _TYPES[name] in (int, float) and isinstance(given, str) and (match := _TIMES.fullmatch(given.strip())):
        factor = float(match[1])
        if not 0 < factor < math.inf:
            raise UsageError(f"{name} {given}: the factor must be above 0")
        return Multiplier(factor)
    value = _widened(name, given)
    if problem := _problem(name, value):
        raise UsageError(problem)
    assert isinstance(value, Value)
    return value


def describe_field(name: str) -> str:
    """Unit and range of a field, in words."""
    field, kind = FIELDS[name], _TYPES[name]
    if get_origin(kind) is Literal:
        return f"{field.unit}: {', '.join(get_args(kind))}"
    return f"{field.unit} [{field.low:g} ... {field.high:g}]" if kind in (int, float) else field.unit


def _parse(name: str, text: str) -> object:
    """A text as TOML would read it, so that 1e-3, true and 0x10 mean here what they mean in a recipe file."""
    if name not in FIELDS or _TYPES[name] is str or get_origin(_TYPES[name]) is Literal:
        return text.strip("\"'")
    try:
        return tomllib.loads(f"value = {text}")["value"] if len(text) <= _MAX_TEXT else text
    except (ValueError, RecursionError):  # an integer of thousands of digits is no TOMLDecodeError
        return text


def _widened(name: str, value: object) -> object:
    """Whole numbers are welcome where a float is asked for."""
    try:
        return float(value) if _TYPES[name] is float and type(value) is int else value
    except OverflowError:
        return value


def _problem(name: str, value: object) -> str | None:
    """What is wrong with a value, or None."""
    field, kind = FIELDS[name], _TYPES[name]
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        return (
            None
            if value in allowed
            else f"{name} {reprlib.repr(value)} must be one of {', '.join(allowed)}" + _meant(value, allowed)
        )
    assert isinstance(kind, type)
    if type(value) is int and value.bit_length() > _MAX_BITS:
        return f"{name}, a number of {value.bit_length():,} bits, must be between {field.low:g} and {field.high:g}"
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        return f"{name} {reprlib.repr(value)} must be {words[kind]}"
    if isinstance(value, int | float) and kind is not bool and not field.low <= value <= field.high:
        return f"{name} {value:g} must be between {field.low:g} and {field.high:g}"
    return None


def _unknown(name: str) -> str:
    return f"unknown field {name!r}" + (_meant(name, FIELDS) or "; `timebox recipes haet2021` shows all fields")


def _meant(given: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(given), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
