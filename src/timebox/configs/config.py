"""``Config``: a frozen msgspec struct that validates its fields whenever it is made and reports all errors at once."""

import difflib
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import cache
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct, ValidationError, convert, defstruct
from msgspec.structs import asdict, fields, force_setattr, replace

from timebox.errors import BudgetError, UsageError, flag_of, flags_in_messages
from timebox.paths import expand_user

_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", tuple: "a list of texts"}
_NO_UPPER_BOUND = 2**62  # messages leave out larger bounds: they only keep an integer in 64 bits, or a float finite

# Names of fields, and a check over them that raises UsageError. It runs only where each of these fields is valid.
Rule = tuple[tuple[str, ...], Callable[[Any], None]]


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of the configs. Constructing one, also by :meth:`replace`, converts and checks every field.

    Class attributes:
        rules: checks over several fields that hold for every config.
        requirements: checks that hold for what a user asks for, but not for a config that is read back from a file or
            made by another verb; run by :meth:`parse`.
    Raises:
        UsageError: with all errors in one line; BudgetError if every one concerns a budget.
    """

    rules: ClassVar[tuple[Rule, ...]] = ()
    requirements: ClassVar[tuple[Rule, ...]] = ()

    def __post_init__(self) -> None:
        values, errors = _validate(type(self), asdict(self))
        _raise_all(errors)
        for name, value in values.items():  # a list has become a tuple, "10m" 600.0
            force_setattr(self, name, value)

    @classmethod
    def from_call(cls, arguments: Mapping[str, object]) -> Self:
        """The config of a public function's arguments, given its ``locals()``; other arguments are ignored.

        A running ``deadline`` among the arguments takes the place of ``budget``.
        """
        values = {name: arguments[name] for name in cls.__struct_fields__ if name in arguments}
        if (deadline := arguments.get("deadline")) is not None:
            values["budget"] = getattr(deadline, "budget_seconds", None)
        return cls.parse(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, is_text: bool = False, errors: Sequence[UsageError] = ()) -> Self:
        """The config that a user asks for, checked with its requirements too.

        Args:
            values: values by field; defaults for the others.
            is_text: whether they are texts of a command line; errors then name the flags.
            errors: earlier errors, which come first. Requirements are not checked then.
        """
        with flags_in_messages() if is_text else nullcontext():
            checked, further = _validate(cls, values, is_text=is_text, is_request=not errors)
        _raise_all([*errors, *further])
        return cls(**checked)

    def replace(self, **changes: Any) -> Self:
        """A copy with other values for some fields, validated."""
        return replace(self, **changes)

    def arguments(self) -> dict[str, Any]:
        """All fields by name: the keyword arguments of the verb's public function."""
        return asdict(self)

    def changed_fields(self) -> list[str]:
        """Names of the fields that differ from their defaults, in the order of declaration."""
        return changed_fields(type(self), self)

    def as_dict(self, names: Iterable[str] | None = None) -> dict[str, object]:
        """Fields ready for JSON, all of them or those named."""
        return {name: getattr(self, name) for name in names or self.__struct_fields__}


def changed_fields(cls: type[Config], values: Any) -> list[str]:
    """Names of the fields of ``cls`` whose values, attributes of ``values``, differ from the defaults."""
    return [name for name, one in options_of(cls).items() if getattr(values, name) != one.default]


def option(help: str, **metadata: Any) -> Meta:
    """Command-line metadata of a field, to be used in ``Annotated``.

    Args:
        help: the help text. Of nested annotations the outermost text counts.
        metadata: ``metavar``; ``group``: title of the option group; ``positional``: the metavar of a positional
            argument; ``read``: converts a value, raising ValueError; ``write``: converts a value to text that
            ``read`` takes; ``allowed``: describes the values, where the type alone does not;
            ``is_path``: whether texts are paths, in which ``~`` is the home directory.
    """
    return Meta(description=help, extra=metadata)


class Option(NamedTuple):
    """The declaration of one field.

    Attributes:
        holder: a struct whose only field, ``value``, has the option's type. Given that type itself, ``convert`` would
            hash it, in Python code, and ignore what is raised there: the KeyboardInterrupt of a signal would be lost.
        types: each plain type that a value may have, with its bounds.
        choices: the allowed values of a ``Literal``.
        flag: the option's name on the command line.
    """

    name: str
    holder: type[Any]
    default: Any
    help: str
    metadata: Mapping[str, Any]
    types: Mapping[Any, Sequence[Meta]]
    choices: tuple[str, ...]
    flag: str

    @property
    def is_positional(self) -> bool:
        """Whether the command line takes it by its place."""
        return "positional" in self.metadata

    @property
    def allowed(self) -> str:
        """The values that are accepted: `one of auto, cpu, cuda`, `an integer of at least 1`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        parts = (_TYPE_NAMES[kind] + "".join(map(_bounds, metas)) for kind, metas in self.types.items())
        return str(self.metadata.get("allowed") or " or ".join(parts))

    def read(self, value: Any, is_text: bool) -> Any:
        """A given value, prepared for conversion to the field's type.

        Args:
            is_text: whether the value comes from the command line, where numbers are texts.
        """
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.metadata.get("is_path"):
            value = _expanded(value)
        if value is not None and "read" in self.metadata:
            return self.metadata["read"](value)
        if isinstance(value, str) and is_text and (int in self.types or float in self.types):
            with suppress(ValueError):  # the type refuses the text then
                return int(value.replace(",", "")) if int in self.types else float(value)
        if isinstance(value, Real) and not isinstance(value, bool):  # numpy's numbers too
            return int(value) if isinstance(value, Integral) else float(value)
        return value

    def refusal(self, value: Any) -> str:
        """The error message for a value, without the option's name."""
        allowed = self.allowed
        if int in self.types and not self.choices and len(str(value)) > len(str(_NO_UPPER_BOUND)) - 1:
            allowed += ", below 2**63"
        return f"{reprlib.repr(value)} must be {allowed}{did_you_mean(str(value), self.choices)}"


def _expanded(value: Any) -> Any:
    """A path, or each path of a list, with the home directory in place of ``~``."""
    if isinstance(value, list | tuple):
        return tuple(map(_expanded, value))
    return expand_user(value) if isinstance(value, str | os.PathLike) else value


@cache
def options_of(cls: type[Config]) -> dict[str, Option]:
    """The options of a config class by name, in the order of declaration."""
    return {field.name: _option(field.name, field.type, field.default) for field in fields(cls)}


def _option(name: str, hint: Any, default: Any) -> Option:
    metas = getattr(hint, "__metadata__", ())  # innermost first: a shared alias before what a config adds to it
    help = next((meta.description for meta in reversed(metas) if meta.description), "")
    metadata = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
    types: dict[Any, list[Meta]] = {}
    choices: tuple[str, ...] = ()
    to_visit: list[tuple[Any, list[Meta]]] = [(hint, [])]
    for kind, bounds in to_visit:  # grows in the loop
        if inner := getattr(kind, "__metadata__", ()):
            to_visit.append((get_args(kind)[0], list(inner)))
            metadata = {key: value for meta in inner for key, value in (meta.extra or {}).items()} | metadata
        elif get_origin(kind) is Literal:
            choices += tuple(map(str, get_args(kind)))
        elif (plain := get_origin(kind) or kind) in _TYPE_NAMES:
            types[plain] = bounds
        else:
            to_visit += [(part, []) for part in get_args(kind)]
    holder = defstruct("Holder", [("value", hint)])
    return Option(name, holder, default, help, metadata, types, choices, flag_of(name, default is True))


def _validate(
    cls: type[Config], values: Mapping[str, Any], is_text: bool = False, is_request: bool = False
) -> tuple[dict[str, Any], list[UsageError]]:
    """Converted values, and the errors."""
    options = options_of(cls)
    unknown = [name for name in values if name not in options]
    errors = [UsageError(f"there is no option {name!r}{did_you_mean(name, options)}") for name in unknown]
    converted: dict[str, Any] = {}
    invalid: set[str] = set()
    for name, one in options.items():
        label = one.metadata.get("positional", one.flag) if is_text else name
        try:
            if name in values:
                converted[name] = convert({"value": one.read(values[name], is_text)}, one.holder).value
            elif one.default is NODEFAULT:
                raise UsageError("is missing")
        except ValueError as error:
            invalid.add(name)
            kind = type(error) if isinstance(error, UsageError) else UsageError
            reason = one.refusal(values[name]) if isinstance(error, ValidationError) else error
            errors.append(kind(f"{label} {reason}"))
    view = SimpleNamespace(**{name: converted.get(name, one.default) for name, one in options.items()})
    for names, check in (*cls.rules, *(cls.requirements if is_request else ())):
        if invalid.isdisjoint(names):
            try:
                check(view)
            except UsageError as error:
                errors.append(error)
    return converted, errors


def _raise_all(errors: Sequence[UsageError]) -> None:
    if errors:
        kind = BudgetError if all(isinstance(error, BudgetError) for error in errors) else UsageError
        raise kind("; ".join(map(str, errors)))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'train'?` if one of ``known`` is close to ``word``, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _bounds(meta: Meta) -> str:
    if meta.min_length:
        return " that is not empty"
    low = f" of at least {meta.ge:g}" if meta.ge is not None else f" above {meta.gt:g}" if meta.gt is not None else ""
    high = f" at most {meta.le:g}" if meta.le is not None else f" below {meta.lt:g}" if meta.lt is not None else ""
    return low if not high or (meta.le or 0) > _NO_UPPER_BOUND else " and".join(filter(None, (low, high)))
