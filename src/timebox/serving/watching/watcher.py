"""Follows a training, a search or a benchmark by the files in its directory. Nothing heavy is imported: watching costs
the training no memory, and next to no time."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import structs

from timebox.errors import TimeboxError, UsageError
from timebox.file_versions import (
    BENCHMARK_FORMAT,
    BENCHMARK_SUMMARY_FORMAT,
    METRICS_FORMAT,
    STATUS_FORMAT,
    SUMMARY_FORMAT,
    TUNE_FORMAT,
    TUNE_SUMMARY_FORMAT,
    FileFormat,
)
from timebox.files import is_locked, open_regular, parse_json_object, read_regular
from timebox.serving.watching.values import (
    LINE_FIELDS,
    SUMMARY_FIELDS,
    TRIAL_FIELDS,
    Status,
    Values,
    fields_of,
    lines_of,
    status_of,
)

SUMMARY, TRIALS, REPORTS = "summary.json", "trials.jsonl", ("report.html", "tune.html")
MAX_JSON_BYTES = 64 << 20
# Bytes of new lines that are read at once, and lines that are sent at once: more of them are thinned out.
MAX_NEW_BYTES, MAX_NEW_LINES = 8 << 20, 2000
ENDS = ("done", "stopped", "killed", "nothing")
# Seconds between looks at the lock of a search or benchmark: one that begins in that very moment would be refused.
LOCK_SECONDS = 5.0
# Seconds by which the start of one training may differ between two writes of its status.
SAME_START_SECONDS = 1.0


@dataclass(frozen=True)
class TrialsKind:
    """A kind of directory with trials: its name, the file by which it is known, the file that its process locks, the
    format of its summary."""

    name: str
    file: str
    lock: str
    summary: FileFormat


KINDS_OF_TRIALS = (
    TrialsKind("search", TUNE_FORMAT.file, "lock", TUNE_SUMMARY_FORMAT),
    TrialsKind("benchmark", BENCHMARK_FORMAT.file, TRIALS, BENCHMARK_SUMMARY_FORMAT),
)


def check_watchable(path: Path) -> None:
    """Raise UsageError for a path at which no directory can be: a file, or a link that leads to itself."""
    try:
        is_directory = path.is_dir() or not path.stat()
    except FileNotFoundError:  # it may begin later
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{str(path)!r} cannot be watched: {reason}") from error
    if not is_directory:
        raise UsageError(f"{str(path)!r} is a file: give the directory of a training, a search or a benchmark")


class DirectoryWatcher:
    """The state of what is trained in a directory, read anew at each :meth:`poll`.

    Args:
        path: of the run, search or benchmark. It may not exist yet, and may be about to be replaced.
        has_ended: whether the training is known to have ended, whatever its files say.
    """

    def __init__(self, path: Path, has_ended: Callable[[], bool] = lambda: False) -> None:
        self._path, self._has_ended = path, has_ended
        self._name = Path(os.path.realpath(path)).name
        self._lines = _NewLines()
        self._last_progress = 0.0
        self._was_seen = False
        self._started_at: float | None = None
        self._looked_at = -LOCK_SECONDS
        self._is_locked: bool | None = None

    @property
    def folder(self) -> Path:
        """The directory in which the training writes: one beside ``path`` while that is to be replaced."""
        pattern = re.compile(rf"\.{re.escape(self._path.name)}\.new-[0-9a-f]{{16}}")
        with suppress(OSError):
            beside = [entry for entry in self._path.parent.iterdir() if pattern.fullmatch(entry.name)]
            return max(beside, key=lambda entry: entry.stat().st_mtime, default=self._path)
        return self._path

    def poll(self) -> Values:
        """The state, and the lines that were written since the last call.

        Its values: ``kind`` (training, search or benchmark), ``phase`` (waiting, planning, training, scoring, done,
        stopped, killed, or nothing where it ended before anything was kept), ``status`` and ``summary`` (as in the
        files, None without), ``seconds_left``, ``report`` (whether there is one), ``restarted`` (whether earlier lines
        no longer count) and ``lines``.
        """
        folder = self.folder
        # Asked first: what is written before the end is then found below.
        has_ended = self._has_ended()
        kind = next((kind for kind in KINDS_OF_TRIALS if (folder / kind.file).is_file()), None)
        state = self._state_of_trials(folder, kind) if kind else self._state_of_training(folder)
        is_over = has_ended or (self._was_seen and state["phase"] == "waiting")
        if is_over and state["phase"] not in ENDS:
            state |= {"phase": "nothing" if state["phase"] == "waiting" else "killed", "seconds_left": None}
        self._was_seen = self._was_seen or state["phase"] not in ("waiting", "nothing")
        return {"name": self._name, "report": report_in(folder) is not None, **state}

    def _state_of_training(self, folder: Path) -> Values:
        status, summary, is_unreadable = None, None, False
        try:
            status = read_status(folder)
        except (OSError, ValueError, TimeboxError):
            is_unreadable = True
        if found := _read_if_possible(folder / SUMMARY, SUMMARY_FORMAT):
            summary = fields_of(found, SUMMARY_FIELDS)
        if status:
            self._note_start(status.started_at)
        restarted, lines = self._lines.read(folder / METRICS_FORMAT.file, LINE_FIELDS)
        if restarted:
            self._last_progress = 0.0
        for line in lines:
            self._last_progress = 1.0 if line.get("aborted") else line.get("progress", self._last_progress)
        # A status that cannot be read is that of a training all the same, which goes on.
        phase = "planning" if is_unreadable else self._phase(status, summary)
        return {
            "kind": "training",
            "phase": phase,
            "status": structs.asdict(status) if status else None,
            "summary": summary and {name: summary.get(name) for name in SUMMARY_FIELDS},
            "seconds_left": _seconds_left(status) if phase not in ENDS else None,
            "restarted": restarted,
            "lines": lines,
        }

    def _note_start(self, started_at: float) -> None:
        """Read all lines again where another training has begun."""
        if self._started_at is not None and abs(started_at - self._started_at) > SAME_START_SECONDS:
            self._lines.begin_again()
        self._started_at = started_at

    def _phase(self, status: Status | None, summary: Values | None) -> str:
        if status is not None:
            if not _is_alive(status):
                return "killed"
            if status.expected_steps is None:
                return "planning"
            return "scoring" if self._last_progress >= 1 else "training"
        if summary is not None:
            return "stopped" if summary.get("stopped") else "done"
        return "waiting"

    def _state_of_trials(self, folder: Path, kind: TrialsKind) -> Values:
        restarted, lines = self._lines.read(folder / TRIALS, TRIAL_FIELDS)
        has_summary = _read_if_possible(folder / SUMMARY, kind.summary) is not None
        is_running = self._is_running(folder / kind.lock)
        if is_running or (is_running is None and not has_summary):
            phase = "training"
        else:
            phase = "done" if has_summary else "killed"
        unknown = dict.fromkeys(("status", "summary", "seconds_left"))
        return {"kind": kind.name, "phase": phase, **unknown, "restarted": restarted, "lines": lines}

    def _is_running(self, lock: Path) -> bool | None:
        """Whether a process holds the lock, as of some seconds ago; None where that cannot be known."""
        if time.monotonic() - self._looked_at >= LOCK_SECONDS:
            self._looked_at, self._is_locked = time.monotonic(), is_locked(lock)
        return self._is_locked


class _NewLines:
    """The lines of a file that grows."""

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None
        self._position = 0
        self._is_other = False

    def begin_again(self) -> None:
        """Take the file for another one at the next read."""
        self._file, self._position, self._is_other = None, 0, True

    def read(self, path: Path, fields: Mapping[str, Any]) -> tuple[bool, list[Values]]:
        """Whether the file is another one, is gone, or was cut, since the last call; and these fields of its new
        lines."""
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._file or status.st_size < self._position:
                    self.begin_again()
                self._file = identity
                file.seek(self._position)
                content = file.read(MAX_NEW_BYTES)
        except OSError:
            if self._file:
                self.begin_again()
            content = b""
        # Of a line longer than all that is read at once nothing is kept.
        end = len(content) if len(content) == MAX_NEW_BYTES and b"\n" not in content else content.rfind(b"\n") + 1
        self._position += end
        is_other, self._is_other = self._is_other, False
        return is_other, list(_thinned(list(lines_of(content[:end], fields))))


def _thinned(lines: Sequence[Values]) -> Iterator[Values]:
    """Every n-th step, and all other lines."""
    stride = max(1, len(lines) // MAX_NEW_LINES)
    return (line for number, line in enumerate(lines) if "loss" not in line or number % stride == 0)


def read_status(folder: Path) -> Status | None:
    """status.json; None without it. Raises OSError, ValueError and RunError where it cannot be read."""
    path = folder / STATUS_FORMAT.file
    return status_of(_read(path, STATUS_FORMAT), repr(str(path))) if path.is_file() else None


def _read(path: Path, file_format: FileFormat) -> Values:
    """The values of a file. Raises OSError, ValueError and RunError."""
    return file_format.upgraded(parse_json_object(read_regular(path, MAX_JSON_BYTES)), repr(str(path)))


def _read_if_possible(path: Path, file_format: FileFormat) -> Values | None:
    """The values of a file; None where it is not there, or cannot be read now."""
    with suppress(OSError, ValueError, TimeboxError):
        return _read(path, file_format)
    return None


def _is_alive(status: Status) -> bool:
    """Whether the process of a training runs; True for one on another machine."""
    if status.host != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _seconds_left(status: Status | None) -> float | None:
    if status is None or status.budget_seconds is None:
        return None
    return max(0.0, status.started_at + status.budget_seconds - time.time())


def report_in(folder: Path) -> Path | None:
    """The page in a directory; None without one."""
    return next((folder / name for name in REPORTS if (folder / name).is_file()), None)
