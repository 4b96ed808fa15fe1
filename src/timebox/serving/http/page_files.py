"""The files of the pages, and the answers where something goes wrong."""

from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from timebox.errors import OutputError, TimeboxError
from timebox.serving.http.answers import error_answer
from timebox.serving.http.errors import RequestError

MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
STYLE = "style.css"  # that the reports have too


def error_handlers() -> dict[Any, Callable[[Request, Exception], Awaitable[Response]]]:
    """The functions that Starlette calls for an exception: each becomes a sentence in JSON."""
    return {RequestError: _refuse, TimeboxError: _fail, HTTPException: _refuse_address, Exception: _fail}


@cache
def _files() -> dict[str, bytes]:
    """The files of the pages, by name. Nothing else is ever read for a request."""
    package = resources.files("timebox")
    files = {file.name: file.read_bytes() for file in (package / "serving" / "pages").iterdir() if file.is_file()}
    return {**files, STYLE: (package / "reporting" / "templates" / STYLE).read_bytes()}


def page_file(name: str) -> Response:
    """A file of the pages. Raises RequestError for any other name."""
    if name not in _files():
        raise RequestError(404, "there is nothing at this address")
    media_type = MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(_files()[name], media_type=media_type, headers={"Cache-Control": "no-cache"})


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return error_answer(error)


async def _refuse_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {404: "there is nothing at this address", 405: f"{request.method} is not possible at this address"}
    return error_answer(RequestError(error.status_code, texts.get(error.status_code, error.detail), error.headers))


async def _fail(request: Request, error: Exception) -> Response:
    status = 507 if isinstance(error, OutputError) else 500
    text = str(error) if isinstance(error, TimeboxError) else f"internal error: {type(error).__name__}: {error}"
    return error_answer(RequestError(status, text))
