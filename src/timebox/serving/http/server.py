"""Listening, and ending: requests in progress are finished first."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from timebox.errors import UsageError, option_text
from timebox.serving.http.quiet import silence_libraries

# Seconds for requests in progress once the server is to end; and of a connection without requests.
STOP_SECONDS, IDLE_SECONDS = 10, 30
TICKS_BETWEEN_CHECKS = 10
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Server(uvicorn.Server):
    """Ends at the first signal and returns, in place of raising the signal again; a second one drops what is left.

    Args:
        ready, is_over, ending: as of :func:`run_server`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        ready: Callable[[], object],
        is_over: Callable[[], bool],
        ending: Callable[[], object],
    ) -> None:
        super().__init__(config)
        self._ready, self._is_over, self._ending = ready, is_over, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn to begin."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn every tenth of a second; whether to end."""
        is_over = await super().on_tick(counter)
        if not is_over and counter % TICKS_BETWEEN_CHECKS == 0:
            is_over = await asyncio.to_thread(self._is_over)
        if is_over:
            self._ending()
        return is_over

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
        wakeup = signal.set_wakeup_fd(-1)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.force_exit, self.should_exit = self.should_exit, True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 for a free one. Raises UsageError where that is not possible."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(512)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        other = option_text("port", 0)
        raise UsageError(f"cannot listen on host {host!r}, port {port}: {reason}; {other} takes a free port") from error
    return listener


def run_server(
    app: ASGIApp,
    listener: socket.socket,
    ready: Callable[[], object],
    is_over: Callable[[], bool] = lambda: False,
    ending: Callable[[], object] = lambda: None,
) -> None:
    """Answer requests until SIGINT or SIGTERM comes. Must be called in the main thread.

    Args:
        ready: called when the server answers.
        is_over: called every second; the server ends where it returns True.
        ending: called when the server is about to end. Answers that are still under way have some seconds.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        log_level="error",  # below that it tells of each request that is no HTTP
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        proxy_headers=False,
        lifespan="on",
    )
    silence_libraries()
    with listener:
        _Server(config, ready, is_over, ending).run(sockets=[listener])
