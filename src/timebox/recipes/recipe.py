"""Recipe: the hyper-parameters of a training (network, optimizer, schedule, augmentation), with their ranges."""

import dataclasses
import difflib
import math
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from timebox.custom import is_code, is_code_name
from timebox.errors import UsageError, is_printable

MAX_INT_BITS = 256  # of a whole number in a recipe file; a longer one overflows a float
MAX_NUMBER_CHARS = 1000  # of the text of a number or a boolean; int() takes quadratic time
_MULTIPLIER = re.compile(r"x\s*(\d{1,9}(?:\.\d{0,9})?(?:e[+-]?\d{1,2})?|\.\d{1,9})", re.IGNORECASE)

Value = bool | int | float | str


@dataclass(frozen=True)
class Multiplier:
    """A factor on the value that a field would have without it, written ``x0.5``.

    Unlike a fixed value it fits every budget and machine, because the planned value changes with them.
    """

    factor: float

    def apply(self, name: str, value: float) -> float:
        """``factor * value``, clipped to the range of the field ``name`` and rounded if the field is an int."""
        field = FIELDS[name]
        multiple = min(field.high, max(field.low, self.factor * value))
        return round(multiple) if _TYPES[name] is int else multiple

    def __str__(self) -> str:
        return f"x{self.factor:g}"


Setting = Value | Multiplier


@dataclass(frozen=True)
class Field:
    """Description, allowed range and search range of a recipe field.

    Attributes:
        description: the meaning of the field, with its unit.
        low, high: closed range of a number.
        search_factor: ``timebox tune`` searches from the planned value divided by this to the planned value times this;
            0 if the field is not searched in multiples.
        search_range, search_choices: ``timebox tune`` searches between these two values, or among these.
        legacy_value: value that reproduces recipes written before the field existed; None for the fields of timebox
            0.1.0, which are in every recipe file.
        former_name: name of the field in earlier versions, whose files are still read.
        takes_code: whether the field may also name code of the user's, see :mod:`timebox.custom`.
    """

    description: str
    low: float = 0
    high: float = 0
    search_factor: float = 0
    search_range: tuple[float, float] | None = None
    search_choices: tuple[str, ...] = ()
    legacy_value: Value | None = None
    former_name: str | None = None
    takes_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All hyper-parameters of a training. Raises UsageError that lists all values out of range or in conflict."""

    name: Annotated[str, Field("name of the recipe")]

    model: Annotated[Literal["resnet9", "resnet18", "airbench"], Field("network architecture", takes_code=True)]
    ensemble_size: Annotated[
        int, Field("networks trained side by side; their probabilities are averaged", 1, 64, former_name="members")
    ]
    width: Annotated[int, Field("channels of the network's first stage", 4, 512, search_factor=1.5)]
    input_scale: Annotated[
        float, Field("resize factor on images before the first layer; airbench only", 0.1, 4, search_factor=1.3)
    ]
    blur_pool: Annotated[bool, Field("BlurPool (max pooling with a blur) in place of max pooling; airbench only")]
    whitening: Annotated[
        bool, Field("fixed whitening filters in the first convolution; identity filters in airbench if false")
    ]
    whitening_bias_until: Annotated[float, Field("progress at which the whitening bias is frozen; airbench only", 0, 1)]
    identity_init: Annotated[bool, Field("identity initialisation of 3x3 convolutions")]
    norm_epsilon: Annotated[
        float, Field("added to the variances in batch norm, above 1e-12; airbench only", 0, 1, legacy_value=0.0)
    ]
    celu_alpha: Annotated[float, Field("alpha of CELU in resnet9; 0 for resnet18 (ReLU) and airbench (GELU)", 0, 10)]
    ghost_size: Annotated[
        int, Field("images per ghost batch norm group; 0 for the whole batch, as in resnet18", 0, 65536)
    ]
    logit_scale: Annotated[float, Field("factor on the logits; 1 for resnet18", 0.001, 10)]

    batch_size: Annotated[int, Field("images per step", 2, 65536, search_factor=8)]
    min_steps: Annotated[int, Field("batch size and max_lr are halved if the budget allows fewer steps", 1, 10**6)]
    optimizer: Annotated[
        Literal["sgd", "muon", "adamw"],
        Field("adamw, or sgd, with muon for convolution filters or without", takes_code=True),
    ]
    filter_lr: Annotated[
        float, Field("highest learning rate of muon: relative change of filters per step", 1e-6, 10, search_factor=4)
    ]
    filter_momentum: Annotated[float, Field("Nesterov momentum of muon", 0.01, 0.999, search_range=(0.4, 0.9))]
    policy: Annotated[
        Literal["one_cycle", "triangular", "piecewise", "constant"],
        Field("learning rate policy", search_choices=("one_cycle", "triangular", "piecewise")),
    ]
    max_lr: Annotated[
        float,
        Field(
            "highest learning rate of sgd or adamw, for the mean loss of a batch; with an optimizer of your own the "
            "highest factor on its rates",
            1e-6,
            10_000,
            search_factor=16,
        ),
    ]
    start_fraction: Annotated[float, Field("first learning rate, as a fraction of max_lr", 0, 1)]
    end_fraction: Annotated[float, Field("last learning rate, as a fraction of max_lr", 0, 1)]
    peak_at: Annotated[float, Field("progress at which the learning rate is highest; below down_at", 0, 1)]
    down_at: Annotated[
        float, Field("progress at which one_cycle is back at its first learning rate, piecewise at its last", 0, 1)
    ]
    num_cycles: Annotated[int, Field("number of cycles of the triangular policy", 1, 1000)]
    max_momentum: Annotated[float, Field("Nesterov momentum at the lowest learning rate; beta1 of adamw", 0.01, 0.999)]
    min_momentum: Annotated[float, Field("Nesterov momentum at max_lr; one_cycle and triangular only", 0.01, 0.999)]
    weight_decay: Annotated[
        float, Field("L2 penalty added to the gradient; decoupled from it in adamw", 0, 1, search_factor=8)
    ]
    bias_lr_multiplier: Annotated[
        float, Field("learning rate of biases, as a multiple of max_lr", 0.01, 1000, search_factor=4)
    ]
    loss: Annotated[Literal["cross_entropy"], Field("training loss", legacy_value="cross_entropy", takes_code=True)]
    label_smoothing: Annotated[
        float, Field("label smoothing: target probability spread over all classes", 0, 0.9, search_range=(0, 0.4))
    ]
    class_balance: Annotated[
        float, Field("exponent of the class weights: 0 weights all images equally, 1 all classes equally", 0, 1)
    ]
    averaging_span: Annotated[
        float, Field("time constant of the weight average, in progress; 0 for none", 0, 1, search_range=(0, 0.5))
    ]

    image_size: Annotated[int, Field("side to which images are resized, in pixels; 0 follows the data", 0, 1024)]
    image_fit: Annotated[Literal["crop", "letterbox"], Field("how images that are not square are fitted")]
    start_size: Annotated[
        float, Field("first side of training images, as a fraction of the full side", 0.25, 1, search_range=(0.5, 1))
    ]
    full_size_at: Annotated[
        float, Field("progress from which training images have their full side", 0, 0.9, search_range=(0.2, 0.8))
    ]
    crop_padding: Annotated[int, Field("random crop: largest shift in pixels", 0, 64, search_factor=2)]
    flip: Annotated[Literal["none", "random", "alternating"], Field("horizontal flip of training images")]
    cutout_size: Annotated[
        int, Field("cutout: side of the blanked square in pixels; 0 for none", 0, 1024, search_range=(0, 16))
    ]
    augment: Annotated[
        Literal["none"], Field("further augmentation, after crop and flip", legacy_value="none", takes_code=True)
    ]
    mixup: Annotated[float, Field("share of training images under mixup", 0, 1, search_range=(0, 0.8))]
    mixup_until: Annotated[float, Field("progress at which mixup ends", 0, 1, search_range=(0.5, 1))]
    tta: Annotated[Literal["none", "mirror", "shift", "mirror_shift"], Field("test-time augmentation")]

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
            conflicts.append("ghost_size 1 must be 0 or at least 2: one image has no variance to normalise by")
        if self.model == "resnet9" and self.celu_alpha == 0:
            conflicts.append("celu_alpha 0 must be above 0 for resnet9")
        if self.optimizer == "adamw" and self.min_momentum != self.max_momentum:
            conflicts.append("min_momentum must equal max_momentum for adamw")
        fixed = FIXED_FOR_CODE if is_code(self.model) else _FIXED[self.model]
        wrong = ((name, value) for name, value in fixed.items() if getattr(self, name) != value)
        return conflicts + [f"{name} must be {_text(value)} for {self.model}" for name, value in wrong]

    def replace(self, **changes: Setting) -> "Recipe":
        """A validated copy with some fields set to a value, or multiplied by a Multiplier."""
        return recipe_from(merge_settings(self.as_dict(), changes))

    def as_dict(self) -> dict[str, Value]:
        """Every field and its value, in the order of declaration."""
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        """The complete recipe as TOML, each field with its description as a comment; parses to an equal recipe."""
        import tomli_w  # imported here because training works without it

        entries = {
            name: _printable_toml(tomli_w.dumps({name: value}).strip()) for name, value in self.as_dict().items()
        }
        return "".join(f"{entry:<28} # {describe_field(name)}\n" for name, entry in entries.items())


def _printable_toml(text: str) -> str:
    r"""A TOML entry in which all that a terminal obeys is escaped as TOML does: ``\U0000202e``."""
    return "".join(each if is_printable(each) else f"\\U{ord(each):08x}" for each in text)


# Fields that have only one value for a network of the user's, and for a network.
FIXED_FOR_CODE: dict[str, Value] = {
    "whitening": False,
    "identity_init": False,
    "input_scale": 1.0,
    "blur_pool": False,
    "norm_epsilon": 0.0,
    "whitening_bias_until": 0.0,
    "celu_alpha": 0.0,
    "ghost_size": 0,
    "logit_scale": 1.0,
}
_FIXED: dict[str, dict[str, Value]] = {
    "resnet9": {"whitening_bias_until": 0.0, "input_scale": 1.0, "blur_pool": False, "norm_epsilon": 0.0},
    "resnet18": {name: value for name, value in FIXED_FOR_CODE.items() if name != "identity_init"},
    "airbench": {"celu_alpha": 0.0},
}

_HINTS = get_type_hints(Recipe, include_extras=True)
FIELDS: dict[str, Field] = {field.name: get_args(_HINTS[field.name])[1] for field in dataclasses.fields(Recipe)}
_TYPES: dict[str, object] = {name: get_args(_HINTS[name])[0] for name in FIELDS}


def current_field_name(name: str) -> str:
    """The current name of a field that may be given by its former name."""
    return next((now for now, field in FIELDS.items() if field.former_name == name), name)


def upgrade_fields(values: Mapping[str, object]) -> dict[str, object]:
    """A recipe written by this or an earlier version, with the field names of this version.

    Fields that are newer than the recipe get their ``legacy_value``. Keys that are no field are left in.
    """
    legacy = {name: field.legacy_value for name, field in FIELDS.items() if field.legacy_value is not None}
    return legacy | {current_field_name(name): value for name, value in values.items()}


def recipe_from(values: Mapping[str, object]) -> Recipe:
    """Build a recipe from a value for every field. Fields newer than the recipe's version may be missing.

    Raises UsageError that lists all unknown fields, all missing fields and all invalid values.
    """
    values = upgrade_fields(values)
    known = {name: _int_to_float(name, value) for name, value in values.items() if name in FIELDS}
    missing = [name for name in FIELDS if name not in values]
    problems = [_unknown(name) for name in values if name not in FIELDS]
    problems += ["missing: " + ", ".join(missing)] if missing else []
    problems += [problem for name, value in known.items() if (problem := _problem(name, value))]
    if problems:
        raise UsageError(f"recipe {str(values.get('name', 'custom'))!r}: " + "; ".join(problems))
    return Recipe(**known)  # type: ignore[arg-type]  # _problem has just checked every type


def merge_settings(values: Mapping[str, Setting], changes: Mapping[str, Setting]) -> dict[str, Setting]:
    """``values`` updated by ``changes``. A Multiplier multiplies the present value, and is kept where there is none."""
    result = dict(values)
    for name, change in changes.items():
        present = result.get(name)
        if isinstance(change, Multiplier) and isinstance(present, Multiplier):
            change = Multiplier(change.factor * present.factor)
        elif isinstance(change, Multiplier) and isinstance(present, int | float):
            change = change.apply(name, present)
        result[name] = change
    return result


def parse_settings(settings: Iterable[str]) -> dict[str, Setting]:
    """Parse ``FIELD=VALUE`` and ``FIELD=xFACTOR`` texts in order. Raises UsageError that lists all invalid ones."""
    values: dict[str, Setting] = {}
    problems = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = current_field_name(name.strip())
        try:
            if not equals:
                raise UsageError(f"{setting!r} is not FIELD=VALUE")
            values = merge_settings(values, {name: setting_from(name, _parse(name, text.strip()))})
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("settings: " + "; ".join(problems))
    return values


def settings_from_table(values: Mapping[str, object], where: str) -> dict[str, Setting]:
    """Parse the settings of a TOML table. Raises UsageError that lists all invalid settings."""
    settings: dict[str, Setting] = {}
    problems = []
    for name, value in values.items():
        try:
            current_name = current_field_name(name)
            settings[current_name] = setting_from(current_name, value)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(f"{where}: " + "; ".join(problems))
    return settings


def setting_from(name: str, value: object) -> Setting:
    """Validate a setting of a field: a value, or a multiplier such as ``"x0.5"``. Raises UsageError."""
    if name not in FIELDS:
        raise UsageError(_unknown(name))
    if _TYPES[name] in (int, float) and isinstance(value, str) and (match := _MULTIPLIER.fullmatch(value.strip())):
        factor = float(match[1])
        if not 0 < factor < math.inf:
            raise UsageError(f"{name} {value}: the factor must be above 0")
        return Multiplier(factor)
    value = _int_to_float(name, value)
    if problem := _problem(name, value):
        raise UsageError(problem)
    assert isinstance(value, Value)
    return value


def describe_field(name: str) -> str:
    """Description of a field, with its range or its choices."""
    field, kind = FIELDS[name], _TYPES[name]
    if get_origin(kind) is Literal:
        code = ", or package.module:function" if field.takes_code else ""
        return f"{field.description}: {', '.join(get_args(kind))}{code}"
    return f"{field.description} [{field.low:g} ... {field.high:g}]" if kind in (int, float) else field.description


def _parse(name: str, text: str) -> object:
    """Parse a text as TOML, so that 1e-3, true and 0x10 are read as in a recipe file."""
    if name not in FIELDS or _TYPES[name] is str or get_origin(_TYPES[name]) is Literal:
        return text.strip("\"'")
    try:
        return tomllib.loads(f"value = {text}")["value"] if len(text) <= MAX_NUMBER_CHARS else text
    except (ValueError, RecursionError):  # an integer of thousands of digits raises ValueError, not TOMLDecodeError
        return text


def _int_to_float(name: str, value: object) -> object:
    """Convert an int to a float if the field is a float."""
    try:
        return float(value) if _TYPES[name] is float and type(value) is int else value
    except OverflowError:
        return value


def _problem(name: str, value: object) -> str | None:
    """The error message for an invalid value of a field; None for a valid value."""
    field, kind = FIELDS[name], _TYPES[name]
    if get_origin(kind) is Literal:
        if value in (allowed := get_args(kind)) or (
            field.takes_code and isinstance(value, str) and is_code_name(value)
        ):
            return None
        code = ", or package.module:function" if field.takes_code else ""
        return f"{name} {reprlib.repr(value)} must be one of {', '.join(allowed)}{code}{_did_you_mean(value, allowed)}"
    assert isinstance(kind, type)
    if type(value) is int and value.bit_length() > MAX_INT_BITS:
        return f"{name}, a number of {value.bit_length():,} bits, must be between {field.low:g} and {field.high:g}"
    if type(value) is not kind:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
        return f"{name} {reprlib.repr(value)} must be {words[kind]}"
    if isinstance(value, int | float) and kind is not bool and not field.low <= value <= field.high:
        return f"{name} {value:g} must be between {field.low:g} and {field.high:g}"
    return None


def _unknown(name: str) -> str:
    return f"unknown field {name!r}" + (_did_you_mean(name, FIELDS) or "; `timebox recipes haet2021` shows all fields")


def _did_you_mean(name: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
