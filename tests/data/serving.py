"""A local HTTP server with faults: broken connections, errors, delays."""

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """Serves `files` by name. Faults can be changed between requests; `requests` records the Range headers."""

    files: dict[str, bytes]
    ranges: bool = True  # support Range requests
    stop_after: list[int] = field(default_factory=list)  # bytes after which each next response breaks off
    statuses: list[int] = field(default_factory=list)  # error statuses of the next responses
    delay_seconds: float = 0.0  # before the body
    may_answer: threading.Event = field(default_factory=threading.Event)  # cleared, no body is sent
    requests: list[str | None] = field(default_factory=list)

    def __enter__(self):
        outer = self
        self.may_answer.set()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        return self

    def __exit__(self, *exc):
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.requests.append(wanted)
        content = self.files.get(handler.path.lstrip("/"))
        if self.statuses or content is None:
            handler.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if start >= len(content):
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        self.may_answer.wait()
        time.sleep(self.delay_seconds)
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(content[start:][: self.stop_after.pop(0) if self.stop_after else None])
