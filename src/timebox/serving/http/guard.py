"""Access to a server: the names under which a server answers, pages of other sites, and the token."""

import hmac
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from timebox.serving.http.addresses import is_loopback
from timebox.serving.http.answers import error_answer
from timebox.serving.http.errors import RequestError

SAFE_METHODS = frozenset({"GET", "HEAD"})
# Files without anything of the run in them, and the question whether the server is alive.
OPEN_PATHS = ("/static/", "/health")
SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


@dataclass(frozen=True)
class Guard:
    """Refuses requests that the server must not answer, and adds headers that keep the page to itself.

    A site that has its own name point at this machine, and lets the browser of the user ask, sends that name as Host;
    a page of another site that sends a form has its own Origin. Both are refused.

    Args:
        token: that requests need; None for none, where only this machine can reach the server.
    """

    app: ASGIApp
    token: str | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = dict(message.get("headers", ()))
                message["headers"] = [*own.items(), *((k, v) for k, v in SECURITY_HEADERS.items() if k not in own)]
            await send(message)

        try:
            self._check(scope)
        except RequestError as error:
            await error_answer(error)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.token is None and not is_loopback(_host_name(host)):
            raise RequestError(403, "this server answers under localhost and the numbers of this machine alone only")
        if scope["method"] not in SAFE_METHODS:
            origin = headers.get("origin")
            is_other_site = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
            if is_other_site or (origin is not None and _netloc(origin) != host.lower()):
                raise RequestError(403, "pages of other sites may not send anything to this server")
        is_open = scope["path"].startswith(OPEN_PATHS)
        if self.token is not None and not is_open and not _has_token(headers, scope, self.token):
            raise RequestError(
                401,
                "a token is needed: open the address that the server printed, or send the header "
                "Authorization: Bearer TOKEN",
                {"WWW-Authenticate": "Bearer"},
            )


def _host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case; empty where there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _netloc(origin: str) -> str:
    """The host and port of an Origin header, in lower case; empty where there is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _has_token(headers: Headers, scope: Scope, token: str) -> bool:
    kind, _, sent = headers.get("authorization", "").partition(" ")
    in_address = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
    candidates = [sent.strip() if kind.lower() == "bearer" else "", in_address]
    return any(hmac.compare_digest(candidate.encode(), token.encode()) for candidate in candidates)
