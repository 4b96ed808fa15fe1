"""Programs on a terminal."""

import os
import pty
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def run_on_terminal(command: Sequence[str], folder: Path, statuses: Sequence[int] = (0,)) -> bytes:
    """All that a command writes on a terminal, as stdout and stderr. It must end with one of the statuses."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: the last process has closed it
        while chunk := os.read(ours, 1 << 16):
            written += chunk
    os.close(ours)
    assert process.wait() in statuses, written.decode(errors="replace")
    return written
