"""A run directory that no other process writes: it is locked for as long as a training holds it."""

import errno
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from timebox.errors import OutputError, RunError, UsageError
from timebox.files import lock
from timebox.files.folders import Folder
from timebox.run.directories.own_files import foreign_entry, remove_own_files
from timebox.run.files import METRICS, in_use

# Another process may put a new run in the place of the directory between opening and locking it.
_MAX_TRIES = 5


def lock_folder(path: Path) -> Folder:
    """Open and lock the directory at ``path``; closing it unlocks it.

    The lock is on the directory itself, so that it leaves no file behind and goes on while the directory is renamed. On
    a file system without locks nothing is locked.

    Raises:
        UsageError: where another process holds it. OSError: where there is no directory.
    """
    for _ in range(_MAX_TRIES):
        folder = Folder(path)
        try:
            if folder.handle is not None:
                _lock_directory(folder.handle, path)
        except BaseException:
            folder.close()
            raise
        if folder.is_at(path):
            return folder
        folder.close()
    raise UsageError(in_use(path))


def _lock_directory(handle: int, path: Path) -> None:
    try:
        lock(handle)
    except BlockingIOError as error:
        raise UsageError(in_use(path)) from error
    except OSError as error:
        # NFS locks no directories; there the lock of metrics.jsonl has to do.
        if error.errno != errno.EBADF:
            raise


@contextmanager
def locked_run(path: Path) -> Iterator[Folder]:
    """The run at ``path``, locked inside. Raises UsageError where another process holds it, RunError without any."""
    try:
        folder = lock_folder(path)
    except FileNotFoundError as error:
        raise RunError(f"run {str(path)!r} does not exist") from error
    except NotADirectoryError as error:
        raise RunError(f"run {str(path)!r} is no directory") from error
    except OSError as error:
        raise OutputError(f"run {str(path)!r} cannot be locked: {error.strerror or error}") from error
    with closing(folder):
        yield folder


def check_metrics_unlocked(folder: Folder) -> None:
    """Raise UsageError where metrics.jsonl is locked: by a training of timebox 0.1.0, which locks nothing else, or by
    one on a file system that locks files but no directories."""
    try:
        descriptor = folder.open_file(METRICS, os.O_RDWR)  # NFS locks only files opened for writing
    except OSError:  # not there, or of another user, whose run may be replaced all the same
        return
    try:
        lock(descriptor)
    except BlockingIOError as error:
        raise UsageError(in_use(folder.path)) from error
    finally:
        os.close(descriptor)


def remove_run(path: Path) -> bool:
    """Remove a run directory, unless another process holds it, or it holds anything that timebox has not written.

    Returns whether it was removed.
    """
    with suppress(OSError, UsageError, RunError):
        if path.is_symlink():
            return False
        with closing(lock_folder(path)) as folder:
            check_metrics_unlocked(folder)
            if foreign_entry(folder) is None:
                remove_own_files(folder)
                path.rmdir()
                return True
    return False
