"""Follows a training, a search or a benchmark by the files in its directory. Nothing heavy is imported: watching costs
the training no memory, and next to no time."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from timebox.errors import TimeboxError
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
from timebox.files import open_regular, parse_json_object, read_regular

Values = dict[str, Any]

SUMMARY, TRIALS, REPORTS = "summary.json", "trials.jsonl", ("report.html", "tune.html")
# What holds trials: the file by which it is known, and the format of its summary.
SUMMARY_OF_TRIALS = {
    "search": (TUNE_FORMAT.file, TUNE_SUMMARY_FORMAT),
    "benchmark": (BENCHMARK_FORMAT.file, BENCHMARK_SUMMARY_FORMAT),
}
MAX_JSON_BYTES = 64 << 20
# Bytes of new lines that are read at once, and lines that are sent at once: more of them are thinned out.
MAX_NEW_BYTES, MAX_NEW_LINES = 8 << 20, 2000
LINE_FIELDS = ("step", "epoch", "progress", "loss", "lr", "resolution", "val_accuracy", "rolled_back", "aborted")
TRIAL_FIELDS = ("label", "seed", "settings", "phase", "state", "accuracy", "late", "reason", "error", "budget_seconds")
SUMMARY_FIELDS = (
    "val_accuracy", "val_images", "test_accuracy", "test_images", "elapsed_seconds", "budget_seconds", "late", "steps",
    "epochs", "images_per_second",
)  # fmt: skip
ENDS = ("done", "stopped", "killed")


class DirectoryWatcher:
    """The state of what is trained in a directory, read anew at each :meth:`poll`.

    Args:
        path: of the run, search or benchmark. It may not exist yet, and may be about to be replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = _NewLines()
        self._last_progress = 0.0

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
        stopped or killed), ``status`` and ``summary`` (as in the files, None without), ``seconds_left``, ``report``
        (whether there is one), ``restarted`` (whether earlier lines no longer count) and ``lines``.
        """
        folder = self.folder
        kind = next((kind for kind, (file, _) in SUMMARY_OF_TRIALS.items() if (folder / file).is_file()), None)
        state = self._state_of_trials(folder, kind) if kind else self._state_of_training(folder)
        return {"name": self._path.resolve().name, "report": report_in(folder) is not None, **state}

    def _state_of_training(self, folder: Path) -> Values:
        status = _read_if_possible(folder / STATUS_FORMAT.file, STATUS_FORMAT)
        summary = _read_if_possible(folder / SUMMARY, SUMMARY_FORMAT)
        restarted, lines = self._lines.read(folder / METRICS_FORMAT.file, LINE_FIELDS)
        for line in lines:
            self._last_progress = float(line.get("progress", self._last_progress))
            if line.get("aborted"):
                self._last_progress = 1.0
        phase = self._phase(status, summary)
        return {
            "kind": "training",
            "phase": phase,
            "status": status,
            "summary": summary and {name: summary.get(name) for name in SUMMARY_FIELDS},
            "seconds_left": _seconds_left(status) if phase not in ENDS else None,
            "restarted": restarted,
            "lines": lines,
        }

    def _phase(self, status: Values | None, summary: Values | None) -> str:
        if status is not None:
            if not _is_alive(status):
                return "killed"
            if status.get("expected_steps") is None:
                return "planning"
            return "scoring" if self._last_progress >= 1 else "training"
        if summary is not None:
            return "stopped" if summary.get("stopped") else "done"
        return "waiting"

    def _state_of_trials(self, folder: Path, kind: str) -> Values:
        restarted, lines = self._lines.read(folder / TRIALS, TRIAL_FIELDS)
        _, summary_format = SUMMARY_OF_TRIALS[kind]
        phase = "training" if _read_if_possible(folder / SUMMARY, summary_format) is None else "done"
        unknown = dict.fromkeys(("status", "summary", "seconds_left"))
        return {"kind": kind, "phase": phase, **unknown, "restarted": restarted, "lines": lines}


class _NewLines:
    """The lines of a file that grows."""

    def __init__(self) -> None:
        self._file: tuple[int, int] | None = None
        self._position = 0

    def read(self, path: Path, fields: tuple[str, ...]) -> tuple[bool, list[Values]]:
        """Whether the file is another one, or was cut, since the last call; and these fields of its new lines."""
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino)
                is_new = identity != self._file or status.st_size < self._position
                if is_new:
                    self._file, self._position = identity, 0
                file.seek(self._position)
                content = file.read(MAX_NEW_BYTES)
        except OSError:
            return False, []
        content = content[: content.rfind(b"\n") + 1]
        self._position += len(content)
        return is_new, list(_thinned([line for line in _parsed(content, fields) if line]))


def _parsed(content: bytes, fields: tuple[str, ...]) -> Iterator[Values]:
    for text in content.splitlines():
        with suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield {name: line[name] for name in fields if line.get(name) is not None}


def _thinned(lines: list[Values]) -> Iterator[Values]:
    """Every n-th step, and all other lines."""
    stride = max(1, len(lines) // MAX_NEW_LINES)
    return (line for number, line in enumerate(lines) if "loss" not in line or number % stride == 0)


def read_status(folder: Path) -> Values | None:
    """status.json in its newest format; None without it. Raises RunError where it is damaged."""
    path = folder / STATUS_FORMAT.file
    return _read(path, STATUS_FORMAT) if path.is_file() else None


def _read(path: Path, file_format: FileFormat) -> Values:
    """The values of a file. Raises OSError, ValueError and RunError."""
    return file_format.upgraded(parse_json_object(read_regular(path, MAX_JSON_BYTES)), repr(str(path)))


def _read_if_possible(path: Path, file_format: FileFormat) -> Values | None:
    """The values of a file; None where it is not there, or cannot be read now."""
    with suppress(OSError, ValueError, TimeboxError):
        return _read(path, file_format)
    return None


def _is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process of a training runs; True for one on another machine."""
    pid = status.get("pid")
    if status.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0 or os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to another user
        return True
    return True


def _seconds_left(status: Mapping[str, Any] | None) -> float | None:
    if status is None:
        return None
    started, budget = status.get("started_at"), status.get("budget_seconds")
    if not isinstance(started, int | float) or not isinstance(budget, int | float):
        return None
    return max(0.0, started + budget - time.time())


def report_in(folder: Path) -> Path | None:
    """The page in a directory; None without one."""
    return next((folder / name for name in REPORTS if (folder / name).is_file()), None)
