"""The key of a run, with which its ranks sign their messages."""

import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed.distributed_c10d import Store

from timebox.errors import UsageError
from timebox.files import open_regular

# The user's own key; ranks on several hosts have no other secret in common.
KEY_VARIABLE = "TIMEBOX_GROUP_KEY"
MIN_KEY_CHARACTERS = 16
KEY_BYTES = 32
_STORE_NAME = "key"
# Least time that worker ranks wait for the key, once all ranks have started.
_WAIT = timedelta(seconds=60)


@contextmanager
def shared_run_key(store: Store, rank: int, is_one_host: bool) -> Iterator[bytes]:
    """The key of the run, on every rank; the body must wait until all ranks have it.

    It is the value of TIMEBOX_GROUP_KEY where that is set. Else rank 0 draws a random one: on one host it reaches the
    other ranks through a file that only this user can read, deleted after the body. Between hosts it goes through the
    launcher's store, where everyone who reaches the launcher's port can read it.

    Raises UsageError for a TIMEBOX_GROUP_KEY that is too short, and where the file is not rank 0's.
    """
    own = os.environ.get(KEY_VARIABLE, "")
    if own:
        if len(own) < MIN_KEY_CHARACTERS:
            raise UsageError(f"{KEY_VARIABLE} has {len(own)} characters; use at least {MIN_KEY_CHARACTERS} random ones")
        yield os.fsencode(own)
    elif not is_one_host:
        if rank == 0:
            store.set(_STORE_NAME, secrets.token_hex(KEY_BYTES))
        yield _wait_for_text(store).encode()
    elif rank == 0:
        folder = Path(tempfile.mkdtemp(prefix="timebox-key-"))
        try:
            key = secrets.token_bytes(KEY_BYTES)
            _write_private(folder / "key", key)
            store.set(_STORE_NAME, str(folder / "key"))
            yield key
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    else:
        yield _read_private(Path(_wait_for_text(store)))


def is_key_secret(is_one_host: bool) -> bool:
    """Whether the key is known to the user's own processes only."""
    return is_one_host or bool(os.environ.get(KEY_VARIABLE))


def _wait_for_text(store: Store) -> str:
    store.wait([_STORE_NAME], _WAIT)
    return store.get(_STORE_NAME).decode(errors="replace")


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _read_private(path: Path) -> bytes:
    """The key in a file that no other user can read or write. The path comes from the store, where anyone may write."""
    try:
        with open_regular(path, follow=False) as file:
            status, key = os.fstat(file.fileno()), file.read(KEY_BYTES)
    except OSError as error:
        raise UsageError(f"the key of the run cannot be read from {str(path)!r}: {error}") from error
    is_private = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
    if not is_private or status.st_size != KEY_BYTES:
        raise UsageError(
            f"{str(path)!r} is not the key of this run: it should be a file of {KEY_BYTES} bytes that only this user "
            "can read; another program writes to the port of torchrun"
        )
    return key
