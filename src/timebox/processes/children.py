"""Starts child processes: Python without the working directory on its path, and other programs.

No other module starts a process. Arguments are words, never text for a shell. A password does not belong into them:
every user of the machine can read the arguments of every process.
"""

import os
import signal
import site
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from timebox.processes.import_path import ROOT

PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
TimeoutExpired = subprocess.TimeoutExpired
ByteProcess = subprocess.Popen[bytes]


def start_module(module: str, arguments: Sequence[str] = (), **streams: Any) -> subprocess.Popen[Any]:
    """Start ``python -m module``, in the working directory, which is not searched for code.

    Args:
        module: ``timebox``, or a module of it: the same package as this process runs.
        streams: as of ``subprocess.Popen``: ``stdin``, ``stdout``, ``stderr``, ``text``, ``errors``,
            ``start_new_session``; ``env`` has further variables.
    """
    env = child_environment(os.environ, streams.pop("env", {}))
    return subprocess.Popen([sys.executable, *_python_flags(), "-m", module, *arguments], env=env, **streams)


@contextmanager
def running_module(module: str, arguments: Sequence[str] = (), **streams: Any) -> Iterator[subprocess.Popen[Any]]:
    """As :func:`start_module`; a process that still runs at the end of the context is killed.

    That holds also for a signal that comes while it starts: raised out of the constructor of ``Popen``,
    KeyboardInterrupt would leave a process that nobody knows.
    """
    started: list[subprocess.Popen[Any]] = []
    try:
        with _signals_held_back():
            started.append(start_module(module, arguments, **streams))
        yield started[0]
    finally:
        for process in started:
            with process:
                process.kill()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """The handlers of SIGINT and SIGTERM are called at the end of the context. In the main thread; in another no
    handler is called anyway."""
    received: list[tuple[int, FrameType | None]] = []
    handlers = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(signum)):
                    handlers[signum] = handler
                    signal.signal(signum, lambda signum, frame: received.append((signum, frame)))
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    for number, frame in received:
        handlers[signal.Signals(number)](number, frame)


def output_of_code(code: str, max_seconds: float) -> str:
    """The output of a piece of Python, run in a process of its own, stripped; empty if it fails."""
    return output_of([sys.executable, *_python_flags(), "-c", code], max_seconds, child_environment(os.environ, {}))


def output_of(command: Sequence[str], max_seconds: float, env: Mapping[str, str] | None = None) -> str:
    """The output of a command, stripped; empty if it fails or takes longer."""
    try:
        done = subprocess.run(
            command, stdin=DEVNULL, capture_output=True, text=True, timeout=max_seconds, check=True, env=env
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def run_script(script: str, content: bytes, max_seconds: float) -> bytes:
    """The output of a Python script that needs the standard library alone, given `content` on stdin.

    The process searches no folder of the user for code. Raises TimeoutExpired, or OSError where it cannot start.
    """
    command = [sys.executable, "-I", "-S", script]
    return subprocess.run(command, input=content, capture_output=True, timeout=max_seconds, check=False).stdout


def child_environment(environment: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """The variables of a child process that runs Python.

    PYTHONSAFEPATH keeps the working directory off the path of all processes that it starts in turn. PYTHONPATH loses
    its empty entries, which stand for the working directory, and gains the folder of this package unless Python finds
    that by itself: this process may have it from the working directory of a checkout, or from ``sys.path.append``.
    """
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if ROOT not in {os.path.abspath(entry) for entry in (*entries, *_installed_folders())}:  # noqa: PTH100
        entries.append(ROOT)
    others = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    path = {"PYTHONPATH": os.pathsep.join(entries)} if entries else {}
    return {**others, **path, "PYTHONSAFEPATH": "1", **changes}


def _python_flags() -> list[str]:
    """Flags of Python that keep the working directory off the path, and those about its environment that it runs with
    here."""
    if sys.flags.isolated:
        return ["-I"]
    return ["-P", *["-E"] * sys.flags.ignore_environment, *["-s"] * sys.flags.no_user_site]


def _installed_folders() -> list[str]:
    """Folders that Python searches by itself, in which packages are installed."""
    return [
        *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    ]
