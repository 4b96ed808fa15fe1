"""A page in the browser that follows a training: `timebox watch`, in a process of its own."""

import sys
import threading
from pathlib import Path
from typing import Any

from timebox.errors import require_serve
from timebox.processes.children import DEVNULL, PIPE, start_module
from timebox.progress.terminal import print_line

# Time for the page to learn of the end, and for its reader to open the report.
EXIT_AFTER = "30s"
# Nothing of the command's own: who reads that to its end must not wait for the page.
STREAMS: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": DEVNULL, "text": True, "start_new_session": True}


class LivePage:
    """Starts the page of a run, in the background, and prints its address. The page ends by itself.

    Raises UsageError where the extra ``serve`` is not installed.
    """

    def __init__(self) -> None:
        require_serve()
        self._process: Any = None

    def start(self, path: Path) -> None:
        """Start the page of the run that is to lie in ``path``."""
        threading.Thread(target=self._start, args=(path,), name="live", daemon=True).start()

    def _start(self, path: Path) -> None:
        self._process = start_module(
            "timebox", ["watch", str(path), "--port", "0", "--exit-after", EXIT_AFTER], **STREAMS
        )
        line = self._process.stdout.readline().strip()
        self._process.stdout.close()
        print_line(line or "the page that follows the training could not be started", sys.stderr)
