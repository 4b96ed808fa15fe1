"""The values that the page draws, checked: another process writes their files, and any of them may be damaged."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from timebox.errors import RunError

Values = dict[str, Any]

MAX_NUMBER, MAX_WHOLE, MAX_PID = 1e300, 2**53, 2**31 - 1  # of a double, of whole numbers in JavaScript, of pid_t
MAX_TEXT = 2000
Number = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Whole = Annotated[int, Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]

# The fields of a line or a file that are sent, with the type of each.
LINE_FIELDS: Mapping[str, Any] = {
    "step": Whole, "epoch": Number, "progress": Number, "loss": Number, "lr": Number, "resolution": Whole,
    "val_accuracy": Number, "rolled_back": bool, "aborted": bool,
}  # fmt: skip
TRIAL_FIELDS: Mapping[str, Any] = {
    "label": Text, "seed": Whole, "settings": tuple[Text, ...], "phase": Text, "state": Text, "accuracy": Number,
    "late": bool, "reason": Text, "failed": Text, "budget_seconds": Number,
}  # fmt: skip
SUMMARY_FIELDS: Mapping[str, Any] = {
    "val_accuracy": Number, "val_images": Whole, "test_accuracy": Number, "test_images": Whole,
    "elapsed_seconds": Number, "budget_seconds": Number, "late": bool, "steps": Whole, "epochs": Number,
    "images_per_second": Number, "stopped": bool,
}  # fmt: skip


class Status(Struct, frozen=True, kw_only=True):
    """status.json: the fields of a training that is running, as its own process writes them."""

    pid: Annotated[int, Meta(gt=0, le=MAX_PID)]
    host: Text
    started_at: Number
    budget_seconds: Number | None
    expected_steps: Whole | None
    train_images: Whole
    num_classes: Whole
    device: Text
    plan: tuple[Text, ...]
    examples: tuple[tuple[str, str], ...] = ()


def status_of(values: Mapping[str, object], where: str) -> Status:
    """A status from a file, which ``where`` names. Raises RunError where it is damaged."""
    try:
        return msgspec.convert(values, Status)
    except msgspec.ValidationError as error:
        raise RunError(f"{where} is damaged: {error}") from error


def fields_of(values: Mapping[str, object], fields: Mapping[str, Any]) -> Values:
    """These fields of ``values``; those that are missing, or no values of their type, are left out."""
    found = {}
    for name, kind in fields.items():
        with suppress(KeyError, msgspec.ValidationError):
            found[name] = msgspec.convert(values[name], kind)
    return found


def lines_of(content: bytes, fields: Mapping[str, Any]) -> Iterator[Values]:
    """These fields of each line that is a JSON object and has any of them."""
    for text in content.splitlines():
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and (values := fields_of(line, fields)):
                yield values
