"""A page in the browser that follows a training: `timebox watch`, in a process of its own."""

import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from timebox.errors import require_serve
from timebox.processes.children import DEVNULL, PIPE, start_module
from timebox.progress.terminal import print_line

# Time for the page to learn of the end, and for its reader to open the report.
EXIT_AFTER = "30s"
# Nothing of the command's own: who reads that to its end must not wait for the page. The end of its stdin tells the
# page that the training has ended, also where that was killed.
STREAMS: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL, "text": True, "start_new_session": True}


class LivePage:
    """Starts the page of a run, in the background, and prints its address. The page ends half a minute after the
    training: after the context is left, or the process has ended.

    Raises UsageError where the extra ``serve`` is not installed.
    """

    def __init__(self) -> None:
        require_serve()
        self._lock = threading.Lock()
        self._process: Any = None
        self._has_ended = False

    def __enter__(self) -> "LivePage":
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._has_ended = True
            if self._process:
                self._process.stdin.close()

    def start(self, path: Path) -> None:
        """Start the page of the run that is to lie in ``path``."""
        threading.Thread(target=self._start, args=(path,), name="live", daemon=True).start()

    def _start(self, path: Path) -> None:
        arguments = ["watch", "--port", "0", "--exit-after", EXIT_AFTER, "--until-stdin-ends", "--", str(path)]
        line = ""
        with suppress(OSError):
            with self._lock:
                self._process = start_module("timebox", arguments, **STREAMS)
                if self._has_ended:
                    self._process.stdin.close()
            with self._process.stdout:
                line = self._process.stdout.readline().strip()
        print_line(line or "the page that follows the training could not be started", sys.stderr)
