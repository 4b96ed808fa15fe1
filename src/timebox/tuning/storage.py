"""Optuna storages of a search: a journal file on this machine, or a database by its URL."""

import os
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import optuna
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy import make_url
from sqlalchemy.pool import NullPool

from timebox.configs.storage_url import hide_passwords, is_url, without_password
from timebox.errors import OutputError, RunError, UsageError, one_line
from timebox.files import NO_LOCKS, lock, parse_json_object, read_lines, written
from timebox.files.folders import Folder

MAX_CONNECT_SECONDS = 4
# Databases only: Optuna's journal storage has no heartbeat, there the worker pool sees that a process ended.
HEARTBEAT_SECONDS, HEARTBEAT_TIMEOUT_SECONDS = 3, 12
# A journal takes about 300 bytes a trial and epoch; Optuna reads all of it.
MAX_JOURNAL_BYTES, MAX_LINE_BYTES = 1 << 28, 1 << 24
_BLOCK_BYTES, _MAX_REASON_CHARACTERS = 1 << 16, 200
# A trial whose worker died so often is not tried again.
MAX_RETRIES = 2
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class JournalLock:
    """Lock of a journal file by ``flock``, which also cuts off a line that a killed writer left unfinished.

    Optuna's own locks are files that a killed process leaves behind; others wait 30 s for them. The operating system
    releases this lock when its holder ends.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait until no other process writes."""
        file = _open_own(f"{self._path}.lock")
        lock(file, wait=True)
        self._file = file
        with os.fdopen(_open_own(self._path), "rb+") as journal:
            size = journal.seek(0, os.SEEK_END)
            if size > MAX_JOURNAL_BYTES:
                self.release()
                raise RunError(f"{str(self._path)!r} has {size:,} bytes; a search writes at most {MAX_JOURNAL_BYTES:,}")
            journal.seek(max(0, size - 1))
            if size and journal.read() != b"\n":
                journal.truncate(_end_of_last_line(journal, size))
        return True

    def release(self) -> None:
        """Let other processes write."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _end_of_last_line(journal: BinaryIO, size: int) -> int:
    """The offset after the last line break; read from the end in blocks, as a cut-off line is short."""
    while size:
        begin = max(0, size - _BLOCK_BYTES)
        journal.seek(begin)
        if (found := journal.read(size - begin).rfind(b"\n")) >= 0:
            return begin + found + 1
        size = begin
    return 0


def check_journal(path: Path) -> None:
    """Raise RunError for a journal that is not there, holds no search, or has a line that Optuna has not written.

    The last line may be unfinished.
    """
    number = 0
    try:
        for line in read_lines(path, MAX_LINE_BYTES, MAX_JOURNAL_BYTES):
            if not line.endswith(b"\n"):
                break
            number += 1
            if not isinstance(parse_json_object(line).get("op_code"), int):
                raise ValueError("it is no entry of a journal")
    except (OSError, ValueError) as error:
        place = f"line {number} of " if number else ""
        raise RunError(f"{place}{str(path)!r} cannot be read: {error}") from error
    if not number:
        raise RunError(f"{str(path)!r} is damaged: it holds no search")


def _open_own(path: str | Path) -> int:
    """Open a file of a search to be written, created where there is none; its descriptor.

    Raises OutputError for a link, which may lead out of the search's directory, and for pipes and devices.
    """
    path = Path(path)
    with written(f"{str(path)!r}"), Folder(path.parent) as folder:
        return folder.open_own(path.name)


def open_storage(storage: str) -> BaseStorage:
    """A journal by its path, created where there is none, or a database by its URL.

    Raises:
        UsageError: within seconds, for a database that cannot be reached; the message hides its password.
        OutputError: for a journal that cannot be written.
        RunError: for a journal that is damaged.
    """
    if not is_url(storage):
        return _open_journal(storage)
    try:
        return _open_database(storage)
    except Exception as error:  # each database driver has exceptions of its own
        lines = hide_passwords(str(error), storage).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"storage {without_password(storage)!r} cannot be used: {lines[0]}") from None


def _open_journal(storage: str) -> JournalStorage:
    path = Path(storage)
    journal_lock = JournalLock(path)
    try:
        os.close(_open_own(path))
        journal_lock.acquire()
        journal_lock.release()
    except OutputError:
        raise
    except OSError as error:
        reason = "the file system has no locks" if error.errno in NO_LOCKS else error.strerror or error
        raise OutputError(f"{storage!r} cannot be written: {reason}") from error
    try:
        return JournalStorage(JournalFileBackend(storage, journal_lock))  # type: ignore[arg-type]
    except Exception as error:  # Optuna takes the lines as they are: KeyError, TypeError, AssertionError, ...
        reason = one_line(str(error))[:_MAX_REASON_CHARACTERS]
        raise RunError(
            f"{storage!r} is damaged, no search can go on with it: {type(error).__name__}: {reason}"
        ) from error


def _open_database(url: str) -> RDBStorage:
    parts = make_url(url)
    scheme = parts.get_backend_name()
    if parts.host and (port := parts.port or _PORTS.get(scheme)):
        # Drivers may wait for minutes for a host that does not answer.
        socket.create_connection((parts.host, port), MAX_CONNECT_SECONDS).close()
    connect = {"connect_timeout": MAX_CONNECT_SECONDS} if scheme in _PORTS else {}
    with warnings.catch_warnings(action="ignore"):  # heartbeats are marked experimental
        return RDBStorage(
            url,
            engine_kwargs={"connect_args": connect, "poolclass": NullPool},  # idle connections break during trainings
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=HEARTBEAT_TIMEOUT_SECONDS,
            heartbeat_stale_trial_callback=retry_callback(),
        )


def retry_callback() -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Optuna's callback that enqueues a failed trial again, with its reported accuracies."""
    with warnings.catch_warnings(action="ignore"):  # it is marked experimental
        return RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES, inherit_intermediate_values=True)
