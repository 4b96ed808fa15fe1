"""Replacing one run by another: the new one is written beside it, in ``.NAME.new-TOKEN``, and then takes its place.

``replacement.txt`` in such a directory holds the token of its name, and a hash of the path that it is for. Only with it
is a directory of such a name ours; others are left alone, and resumed where they are. While the directory is empty, as
it is made and removed, the run in its place holds that file: so a kill leaves nothing behind for ever.
"""

import ctypes
import hashlib
import os
import re
import secrets
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from timebox.errors import OutputError, UsageError
from timebox.files.folders import Folder
from timebox.run.directories.locks import check_metrics_unlocked, lock_folder, remove_run
from timebox.run.directories.own_files import foreign_entry, remove_own_files
from timebox.run.files import REPLACEMENT, in_use

# Of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NAME = re.compile(r"\.(.+)\.(?:new|old)-([0-9a-f]{16})", re.DOTALL)
_MAX_BYTES = 200
_TOKEN_LENGTH = 16


def make_beside(out: Path, replaced: Folder) -> Folder:
    """A new directory, locked, whose run is to take the place of the one in ``out``, which is ``replaced``, locked."""
    token = secrets.token_hex(8)
    path = out.parent / f".{out.name}.new-{token}"
    replaced.write_whole(REPLACEMENT, _content(token, out))
    path.mkdir(mode=0o700)
    folder = lock_folder(path)
    try:
        folder.write_whole(REPLACEMENT, _content(token, out))
        replaced.remove(REPLACEMENT)
        shutil.copymode(out, path)
    except BaseException:
        folder.close()
        raise
    return folder


def place_of(path: Path) -> Path | None:
    """The path that the run in ``path`` is to be moved to; None where it is no replacement that timebox has begun."""
    path = path.resolve()
    if found := _NAME.fullmatch(path.name):
        out = path.parent / found[1]
        with suppress(OSError), Folder(path) as folder:
            return out if _holds_token(folder, found[2], out) else None
    return None


def _holds_token(folder: Folder, token: str, out: Path) -> bool:
    with suppress(OSError), folder.open_regular(REPLACEMENT) as file:
        return file.read(_MAX_BYTES) == _content(token, out)
    return False


def remove_abandoned(out: Path, replaced: Folder) -> None:
    """Remove the directories beside ``out``, which is ``replaced``, that killed replacements of it have left."""
    for name in os.listdir(out.parent):  # noqa: PTH208  # cheaper than paths, where there are many
        path = out.parent / name
        found = _NAME.fullmatch(name)
        if not found or found[1] != out.name or path.is_symlink():
            continue
        if place_of(path) or _holds_token(replaced, found[2], out):
            with suppress(OSError):
                replaced.write_whole(REPLACEMENT, _content(found[2], out))
                remove_run(path)
                replaced.remove(REPLACEMENT)


def discard(new: Folder, out: Path, replaced: Folder) -> None:
    """Remove the directory that :func:`make_beside` has made, unless it holds a file that is not ours."""
    with suppress(OSError):
        replaced.write_whole(REPLACEMENT, _content(new.path.name[-_TOKEN_LENGTH:], out))
        remove_own_files(new)
        new.path.rmdir()
        replaced.remove(REPLACEMENT)


def put_in_place(new: Folder, path: Path, out: Path, replaced: Folder | None) -> None:
    """Move a whole run from ``path`` to ``out``, and remove the run that was there.

    Args:
        new: the run in ``path``. replaced: the run in ``out``, locked; None where there is none.
    Raises:
        OutputError: where that is not possible, or ``out`` has changed meanwhile; the new run stays in ``path``.
    """
    try:
        _check_unchanged(path, out, replaced)
        if replaced is None:
            path.rename(out)
        else:
            _exchange(new, path, out, replaced)
    except OSError as error:
        with suppress(OSError):  # the new run is whole, and not to be removed by the next replacement
            new.remove(REPLACEMENT)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{str(out)!r} cannot be replaced: {error.strerror or error}") from error
    new.remove(REPLACEMENT)


def _check_unchanged(path: Path, out: Path, replaced: Folder | None) -> None:
    kept = f"the new run is kept in {str(path)!r}"
    if replaced is None:
        if os.path.lexists(out):
            raise OutputError(f"{str(out)!r} has been made meanwhile and is not replaced; {kept}")
        return
    if not replaced.is_at(out):
        raise OutputError(f"{str(out)!r} is no longer the run that was to be replaced; {kept}")
    if foreign := foreign_entry(replaced):
        raise OutputError(f"{str(out)!r} holds {foreign!r}, which timebox has not written, and is not replaced; {kept}")
    try:
        check_metrics_unlocked(replaced)
    except UsageError as error:
        raise OutputError(f"{in_use(out)}; {kept}") from error


def _exchange(new: Folder, path: Path, out: Path, replaced: Folder) -> None:
    """Put ``new`` in the place of ``out``, and remove the old run, of which a kill leaves what the next removes.

    Where the system cannot exchange two names at once, there is a moment in which nothing is at ``out``.
    """
    token = path.name[-_TOKEN_LENGTH:]
    replaced.write_whole(REPLACEMENT, _content(token, out))
    old = path
    if not _exchange_names(out, path):
        old = out.parent / f".{out.name}.old-{token}"
        out.rename(old)
        path.rename(out)
    remove_own_files(replaced)
    with suppress(OSError):  # a file that has just come in
        old.rmdir()


def _content(token: str, out: Path) -> bytes:
    """The content of replacement.txt."""
    path = hashlib.sha256(os.fsencode(out.parent.resolve() / out.name)).hexdigest()
    return f"{token}\n{path}\n".encode()


def _exchange_names(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one instant; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    status: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return status == 0
