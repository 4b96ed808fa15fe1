"""Answers in JSON."""

import msgspec
from starlette.responses import Response

from timebox.serving.http.errors import RequestError


def json_answer(value: object, status: int = 200) -> Response:
    """A value, also of msgspec's structs, as JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def error_answer(error: RequestError) -> Response:
    """``{"error": message}``."""
    answer = json_answer({"error": str(error)}, error.status)
    answer.headers.update(error.headers or {})
    return answer
