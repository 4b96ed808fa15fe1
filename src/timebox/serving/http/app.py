"""An app with a page: its files, its other routes, the answers where something goes wrong, and the guard."""

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan

from timebox.errors import OutputError, TimeboxError
from timebox.serving.http.answers import error_answer
from timebox.serving.http.errors import RequestError
from timebox.serving.http.guard import Guard
from timebox.serving.http.unread import ReadRest

MEDIA_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
STYLE = "style.css"  # that the reports have too


def build_app(
    page: str, routes: Sequence[Route], token: str | None, lifespan: Lifespan[Starlette] | None = None
) -> ASGIApp:
    """An app that shows a page at ``/``.

    Args:
        page: one of the files of the pages.
        routes: all others but those of the files.
        token: that requests need; None for none.
    """

    async def show(request: Request) -> Response:
        return _page_file(page)

    async def static(request: Request) -> Response:
        return _page_file(request.path_params["name"])

    own = [Route("/", show), Route("/static/{name}", static)]
    # Each exception becomes a sentence in JSON.
    handlers: dict[Any, Any] = {
        RequestError: _refuse, TimeboxError: _fail, HTTPException: _refuse_address, Exception: _fail,
    }  # fmt: skip
    app = Starlette(routes=[*own, *routes], exception_handlers=handlers, lifespan=lifespan)
    return ReadRest(Guard(app, token))


@cache
def _files() -> dict[str, bytes]:
    """The files of the pages, by name. Nothing else is ever read for a request."""
    package = resources.files("timebox")
    files = {file.name: file.read_bytes() for file in (package / "serving" / "pages").iterdir() if file.is_file()}
    return {**files, STYLE: (package / "reporting" / "templates" / STYLE).read_bytes()}


def _page_file(name: str) -> Response:
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
