"""The server of `timebox watch`: a page that follows a training, fed by server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from timebox.files import read_regular
from timebox.serving.http.answers import json_answer
from timebox.serving.http.app import build_app
from timebox.serving.http.errors import RequestError
from timebox.serving.watching.watcher import ENDS, DirectoryWatcher, report_in

POLL_SECONDS, PING_SECONDS = 0.5, 15.0
MAX_REPORT_BYTES = 256 << 20
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


class WatchServer:
    """Answers requests about what is trained in a directory.

    Args:
        path: of the run, search or benchmark.
        token: that requests need; None for none.
        has_ended: whether the training is known to have ended, whatever its files say.
    """

    def __init__(self, path: Path, token: str | None, has_ended: Callable[[], bool] = lambda: False) -> None:
        self._path, self._has_ended, self._is_ending = path, has_ended, False
        self._watcher = self._new_watcher()
        self._ended_at: float | None = None
        routes = [
            Route("/state", self._state),
            Route("/events", self._events),
            Route("/report", self._report),
            Route("/health", self._health),
        ]
        self.app = build_app("watch.html", routes, token)

    def end(self) -> None:
        """End the streams of events, which would keep the server from ending."""
        self._is_ending = True

    def _new_watcher(self) -> DirectoryWatcher:
        return DirectoryWatcher(self._path, self._has_ended)

    def seconds_since_end(self) -> float:
        """Seconds since the training was first seen to have ended; 0 while it runs."""
        if self._watcher.poll()["phase"] not in ENDS:
            self._ended_at = None
            return 0.0
        self._ended_at = self._ended_at or time.monotonic()
        return time.monotonic() - self._ended_at

    async def _health(self, request: Request) -> Response:
        return json_answer({"status": "ok"})

    async def _state(self, request: Request) -> Response:
        state = await asyncio.to_thread(self._new_watcher().poll)
        return Response(json.dumps(state, allow_nan=False), media_type="application/json")

    async def _events(self, request: Request) -> Response:
        return StreamingResponse(
            self._stream(), media_type="text/event-stream", headers={"Cache-Control": "no-cache, no-transform"}
        )

    async def _stream(self) -> AsyncIterator[str]:
        """An event for each change, with the lines that are new to this client."""
        watcher, last, last_sent = self._new_watcher(), "", 0.0
        while not self._is_ending:
            state = await asyncio.to_thread(watcher.poll)
            text = json.dumps({**state, "seconds_left": None, "lines": []}, sort_keys=True)
            if state["lines"] or text != last:
                # Plan and examples stay as they are: they are sent once.
                sent = {name: value for name, value in state.items() if name != "status" or text != last}
                yield f"data: {json.dumps(sent, allow_nan=False)}\n\n"
                last, last_sent = text, time.monotonic()
            elif time.monotonic() - last_sent > PING_SECONDS:
                yield f"data: {json.dumps({'seconds_left': state['seconds_left'], 'lines': []})}\n\n"
                last_sent = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)

    async def _report(self, request: Request) -> Response:
        path = report_in(self._watcher.folder)
        if path is None:
            raise RequestError(404, "there is no report yet")
        try:
            page = await asyncio.to_thread(read_regular, path, MAX_REPORT_BYTES)
        except OSError as error:
            raise RequestError(404, f"the report cannot be read: {error}") from error
        # The report has its style inside, which the policy of the other pages would not allow.
        return Response(page, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})
