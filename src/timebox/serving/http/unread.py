"""Bodies that an app leaves unread: they are read to their end, and dropped, before the answer ends.

A connection that is closed while its client still sends is reset, and the client loses an answer that has come already.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Seconds for the rest of a body, and for its next piece.
REST_SECONDS, PIECE_SECONDS = 10.0, 2.0


@dataclass(frozen=True)
class ReadRest:
    """Sends an answer at once, and ends it when the body has come, or nothing more of it comes for some seconds."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _has_body(Headers(scope=scope)):
            exchange = _Exchange(receive, send)
            await self.app(scope, exchange.receive, exchange.send)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """A request with a body, and its answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send, self._is_read = receive, send, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_read = not message.get("more_body", False)  # also where the client has gone
        return message

    async def send(self, message: Message) -> None:
        if not self._is_read:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            elif not message.get("more_body", False):
                await self._send({**message, "more_body": True})
                await self._read_rest()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _read_rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                while not self._is_read:
                    async with asyncio.timeout(PIECE_SECONDS):
                        await self.receive()


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
