"""Where a search keeps its trials: a journal file on this machine, or any database that Optuna takes."""

import os
import re
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.pool import NullPool

from timebox.errors import OutputError, UsageError
from timebox.files import lock_when_free

# A database is given so long to answer at first.
LONGEST_CONNECT_SECONDS = 4
# A worker of a database says so often that it is alive; one that has not for so long is taken for dead.
HEARTBEAT_SECONDS, LONGEST_SILENCE_SECONDS = 3, 12
# A trial that ends its worker so often is not tried again.
MOST_RETRIES = 2
# What stands for a password.
HIDDEN = ":***@"
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class WholeLines:
    """Keeps a journal to one writer at a time, and to whole lines.

    Optuna's own locks are files that a killed process leaves behind for a while. The system lets go of this one at
    once; what was being written then is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: int | None = None

    def acquire(self) -> bool:
        """Wait until nobody else writes."""
        file = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        lock_when_free(file)
        self._held = file
        with self._path.open("rb+") as journal:
            if journal.seek(0, os.SEEK_END) and (journal.seek(-1, os.SEEK_END), journal.read(1))[1] != b"\n":
                journal.seek(0)
                journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let others write."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def is_url(storage: str) -> bool:
    """Whether a storage is a database; else it is the path of a journal."""
    return "://" in storage


def open_storage(storage: str) -> BaseStorage:
    """A journal by its path, made where there is none, or a database by its URL.

    Raises UsageError within seconds for a database that cannot be reached, naming it without its password.
    """
    if not is_url(storage):
        path = Path(storage)
        try:
            path.touch()
        except OSError as error:
            raise OutputError(f"{storage!r} cannot be written: {error.strerror or error}") from error
        return JournalStorage(JournalFileBackend(storage, WholeLines(path)))  # type: ignore[arg-type]
    with _told(storage):
        _check_reachable(storage)
        connect = {"connect_timeout": LONGEST_CONNECT_SECONDS} if _scheme(storage) in _PORTS else {}
        with warnings.catch_warnings(action="ignore"):
            return RDBStorage(
                storage,
                engine_kwargs={"connect_args": connect, "poolclass": NullPool},  # trainings are long, connections break
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=LONGEST_SILENCE_SECONDS,
                heartbeat_stale_trial_callback=queued_again(),
            )


def queued_again() -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    """Puts a trial whose worker died into the queue again, with what it had reported."""
    with warnings.catch_warnings(action="ignore"):
        return RetryHeartbeatStaleTrialCallback(max_retry=MOST_RETRIES, inherit_intermediate_values=True)


def without_password(storage: str) -> str:
    """A storage as it may be shown."""
    return re.sub(r"(password=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@]*):.*@", rf"\1{HIDDEN}", storage))


def _check_reachable(storage: str) -> None:
    """A host that is there answers at once; drivers may wait for minutes for one that is not."""
    parts = urlsplit(storage)
    port = parts.port or _PORTS.get(_scheme(storage))
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), LONGEST_CONNECT_SECONDS).close()


def _scheme(storage: str) -> str:
    return urlsplit(storage).scheme.partition("+")[0]


@contextmanager
def _told(storage: str) -> Iterator[None]:
    """Turns what goes wrong with a database into one line."""
    try:
        yield
    except Exception as error:  # whatever a driver raises
        reason = without_password(str(error)).strip() or type(error).__name__
        raise UsageError(f"storage {without_password(storage)!r} cannot be used: {reason.splitlines()[0]}") from None
