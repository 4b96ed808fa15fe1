"""Typed values of JSON files: their ranges, and conversion to and from structures, with one-line errors."""

from collections.abc import Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from timebox.errors import RunError
from timebox.evaluation.calibration import MAX_TEMPERATURE, MIN_TEMPERATURE

# JSON readers of other languages take no larger integers, and msgspec no larger bounds.
MAX_INT = 2**63 - 1

Count = Annotated[int, Meta(ge=0, le=MAX_INT)]
PositiveCount = Annotated[int, Meta(ge=1, le=MAX_INT)]
Seconds = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Temperature = Annotated[float, Meta(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
RecipeFields = dict[str, bool | int | float | str]
PhaseSeconds = dict[str, float]  # a phase that a download is subtracted from may come out below 0

T = TypeVar("T")
_MAX_REASON_LENGTH = 200


def from_values(values: object, kind: type[T], where: str) -> T:
    """A structure of type ``kind`` from the values of a JSON file in its newest format. Unknown keys are ignored.

    Raises RunError, with the file ``where``, for a value that is missing, has another type or lies out of range.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise RunError(f"{where} is damaged: {_reason(error)}") from error


def valid_values(values: Mapping[str, object], kind: type[msgspec.Struct]) -> dict[str, object]:
    """``values`` without those of the structure's fields that have another type or lie out of range."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    return {key: value for key, value in values.items() if key not in types or _is_valid(value, types[key])}


def to_values(structure: msgspec.Struct) -> dict[str, object]:
    """The values of a structure as ``json`` reads them, in the order of its fields; those that are UNSET left out."""
    return {name: _with_lists(value) for name, value in msgspec.to_builtins(structure, enc_hook=_plain).items()}


def _is_valid(value: object, kind: object) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _with_lists(value: object) -> object:
    """The value with a list in place of each tuple."""
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: object) -> object:
    """numpy.float64 and numpy.str_ are a float and a str to ``json``, but not to msgspec."""
    for kind in (float, str):
        if isinstance(value, kind):
            return kind(value)
    raise NotImplementedError(f"{type(value).__name__} is no value of JSON")


def _reason(error: msgspec.ValidationError) -> str:
    """The message in one line: ``expected float >= 0 at plan.step_seconds``."""
    text = " ".join(str(error).replace("`$.", "`").replace(" - at ", " at ").replace("`", "").split())
    # A value that is none of an enumeration may be megabytes long.
    text = text if len(text) <= _MAX_REASON_LENGTH else f"{text[:_MAX_REASON_LENGTH]}…"
    return text[:1].lower() + text[1:]
