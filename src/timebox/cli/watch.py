"""`timebox watch`: a page in the browser that follows a training, a search or a benchmark."""

import argparse
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from timebox.cli.exit_status import DONE
from timebox.cli.formatting import write
from timebox.cli.parsing import VerbHelp
from timebox.configs.verbs import WatchConfig
from timebox.errors import require_serve
from timebox.paths import expand_user

NICENESS = 10  # the training comes first

HELP = VerbHelp(
    WatchConfig,
    "follow a training in the browser",
    "Opens a page that follows a training as it runs: time left, loss, accuracy, learning rate, augmented images, and "
    "in the end the report. A search or a benchmark is followed trial by trial. The training notices nothing of it. "
    "Only this machine can reach the page, unless --host says otherwise; requests need a token then.",
    ("timebox watch runs/demo", "timebox watch runs/demo --port 0 --exit-after 1m"),
    json_help=None,
)


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM, or so long after the end as --exit-after says."""
    config: WatchConfig = args.config
    require_serve()
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)

    from timebox.serving.http.addresses import address_of, lines_for_others, token_for
    from timebox.serving.http.server import listen, run_server
    from timebox.serving.watching.app import WatchServer
    from timebox.serving.watching.watcher import check_watchable

    token = token_for(config.host, config.token)
    path = Path(expand_user(config.path))
    check_watchable(path)
    has_ended = _stdin_has_ended() if config.until_stdin_ends else lambda: False
    server = WatchServer(path, token, has_ended)
    listener = listen(config.host, config.port)
    address, others = address_of(listener, config.host, token), lines_for_others(listener, token)

    def is_over() -> bool:
        return config.exit_after is not None and server.seconds_since_end() > config.exit_after

    def ready() -> None:
        until = "Ctrl-C" if config.exit_after is None else "it has ended"
        write(f"{path} is shown at {address} until {until}\n{others}")

    run_server(server.app, listener, ready, is_over, server.end)
    return DONE


def _stdin_has_ended() -> Callable[[], bool]:
    """Read standard input in a thread; returns a function that says whether it has ended."""
    ended = threading.Event()

    def read() -> None:
        with suppress(OSError, ValueError):
            while sys.stdin and os.read(sys.stdin.fileno(), 1 << 16):
                pass
        ended.set()

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return ended.is_set
