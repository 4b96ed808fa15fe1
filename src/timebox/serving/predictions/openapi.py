"""The OpenAPI description of the API, its answers taken from the types that the server encodes."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from timebox.serving.predictions.predicting import Prediction
from timebox.version import VERSION

REFERENCE = "#/components/schemas/{name}"
PICTURE = {"schema": {"type": "string", "format": "binary"}}


class Predictions(Struct, frozen=True):
    """Answer to ``POST /predict``.

    Attributes:
        predictions: one for each picture, in their order.
        milliseconds: from the last byte of the request to the answer.
    """

    predictions: list[Prediction]
    milliseconds: float


class Explanation(Struct, frozen=True):
    """Answer to ``POST /explain``.

    Attributes:
        label: the class that is explained.
        width, height: of the picture as the model sees it, in pixels.
        heat_map: a PNG of this size as a data URI. The more opaque a place is, the more it speaks for the class.
    """

    label: str
    width: int
    height: int
    heat_map: str


class Saved(Struct, frozen=True):
    """Answer to ``POST /feedback``.

    Attributes:
        saved: the file on the server's disk.
        previous: the class that the picture was saved as before; null where it was not.
    """

    saved: str
    previous: str | None


class Removed(Struct, frozen=True):
    """Answer to ``POST /feedback/undo``.

    Attributes:
        removed: the files on the server's disk; none where the pictures were not saved.
    """

    removed: list[str]


class Preprocessing(Struct, frozen=True):
    """Preparing a picture for the network: it is brought to ``width`` x ``height`` pixels, scaled to 0...1,
    and normalised with ``mean`` and ``std``.

    Attributes:
        fit: in words.
        tta: the views that are averaged.
    """

    width: int
    height: int
    channels: int
    fit: str
    mean: list[float]
    std: list[float]
    tta: str


class ModelDescription(Struct, frozen=True):
    """Answer to ``GET /model``.

    Attributes:
        name: of the run directory.
        accuracy: on the images of ``accuracy_split``, 0...1; null where none were held out.
        num_images: that the accuracy was measured on.
        budget_seconds: of the training; null where it had none.
        feedback: the folder of corrected pictures; null where none are taken.
    """

    name: str
    classes: list[str]
    accuracy: float | None
    accuracy_split: str | None
    num_images: int
    is_calibrated: bool
    budget_seconds: float | None
    preprocessing: Preprocessing
    feedback: str | None
    timebox: str


class Health(Struct, frozen=True):
    """Answer to ``GET /health``.

    Attributes:
        waiting: pictures in progress.
        engine: that computes the predictions, ``torch`` or ``onnxruntime``.
    """

    status: str
    waiting: int
    engine: str


class Refusal(Struct, frozen=True):
    """Answer to a request that is refused."""

    error: str


ANSWERS = (Predictions, Explanation, Saved, Removed, ModelDescription, Health, Refusal)
REFUSALS = {
    "400": "the request or its pictures are damaged",
    "401": "the token is missing or wrong",
    "403": "sent by a page of another site, or to another name of this machine",
    "408": "the body took too long",
    "413": "too many bytes or pictures",
    "415": "not a picture",
    "429": "too many requests: try again after the seconds in Retry-After",
}


def openapi(has_token: bool) -> dict[str, Any]:
    """The description, as a dictionary for JSON.

    Args:
        has_token: whether requests need a token.
    """
    _, components = msgspec.json.schema_components(ANSWERS, ref_template=REFERENCE)
    label = {"name": "label", "in": "query", "schema": {"type": "string"}, "description": "a class of the model"}
    top = {
        "name": "top", "in": "query", "schema": {"type": "integer", "minimum": 1, "default": 1},
        "description": "how many classes for each picture",
    }  # fmt: skip
    several = {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        }
    }
    described: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "timebox serve", "version": VERSION, "description": "Predictions of a trained run."},
        "paths": {
            "/predict": {"post": _operation("Classes of one picture or several", Predictions, [top], several)},
            "/explain": {"post": _operation("What in a picture speaks for a class", Explanation, [label])},
            "/feedback": {
                "post": _operation("Keep a picture under its right class", Saved, [{**label, "required": True}])
            },
            "/feedback/undo": {"post": _operation("Keep a picture no longer", Removed, [])},
            "/model": {"get": _operation("The model", ModelDescription)},
            "/health": {"get": {**_operation("Whether the server is alive", Health), "security": []}},
        },
        "components": {"schemas": components},
    }
    if has_token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _operation(
    summary: str, answer: type[Struct], parameters: list[Any] | None = None, forms: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    refusal = {"content": {"application/json": {"schema": {"$ref": REFERENCE.format(name="Refusal")}}}}
    schema = {"$ref": REFERENCE.format(name=answer.__name__)}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {
            "200": {"description": "done", "content": {"application/json": {"schema": schema}}},
            **{status: {"description": text, **refusal} for status, text in REFUSALS.items()},
        },
    }
    if parameters is not None:
        body = {"required": True, "content": {"application/octet-stream": PICTURE, "image/*": PICTURE, **(forms or {})}}
        operation |= {"parameters": parameters, "requestBody": body}
    return operation
