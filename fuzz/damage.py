"""Damages a directory as bytes say: files cut off, changed, replaced by links, pipes, sockets and folders.

`write_outside` writes what no command may change: a folder and a file beside the directory, to which some links lead.
"""

import os
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MAX_OPERATIONS = 12
FOREIGN = "photo of mine.png"  # a file that timebox has not written, which stays
_HEADER_BYTES = 5  # action, file, and three bytes of its parameters


def write_outside(scratch: Path) -> Path:
    """Files of the user's beside the directory that is damaged, written anew."""
    outside = scratch / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    (outside / "holiday").mkdir(parents=True, exist_ok=True)
    (outside / "holiday" / "photo.png").write_bytes(b"a photo")
    (outside / "letter.txt").write_bytes(b"a letter")
    return outside


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by their relative names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damage(folder: Path, outside: Path, data: bytes) -> set[str]:
    """Apply the operations that `data` encodes; the names of files that are not timebox's."""
    foreign: set[str] = set()
    for _ in range(MAX_OPERATIONS):
        if len(data) < _HEADER_BYTES:
            break
        action, which, *parameters = data[:_HEADER_BYTES]
        data = data[_HEADER_BYTES:]
        inside = (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
        files = sorted(path for path in inside if path.name != FOREIGN)
        if not files:
            break
        target = files[which % len(files)]
        content, data = _content(parameters, data)
        act = ACTIONS[action % len(ACTIONS)]
        if act in CONTENT_ACTIONS and not _is_own_file(target):  # it would be changed through a link
            continue
        with suppress(OSError, MemoryError):  # a file with a hole of gigabytes is not read
            act(target, outside, parameters, content)
        if act is _add_foreign:
            foreign.add(FOREIGN)
    return foreign


def _is_own_file(target: Path) -> bool:
    return target.is_file() and not target.is_symlink() and target.stat().st_nlink == 1


def _content(parameters: list[int], data: bytes) -> tuple[bytes, bytes]:
    """The bytes that an operation may write, their length from its last parameter; and the rest."""
    return data[: parameters[2]], data[parameters[2] :]


def _keep(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    """Leave it as it is."""


def _remove(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink()


def _position(target: Path, parameters: list[int]) -> int:
    return (parameters[0] << 8 | parameters[1]) * target.stat().st_size // 65536


def _cut_off(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    os.truncate(target, _position(target, parameters))


def _overwrite(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    with target.open("rb+") as file:
        file.seek(_position(target, parameters))
        file.write(content)


def _overwrite_near_start(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    with target.open("rb+") as file:
        file.seek(parameters[0] << 8 | parameters[1])
        file.write(content)


def _insert(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    whole, position = target.read_bytes(), parameters[0] << 8 | parameters[1]
    target.write_bytes(whole[:position] + content + whole[position:])


def _replace(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    target.write_bytes(content)


def _nest(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    target.write_bytes(b"[" * (parameters[0] << 8 | parameters[1]))


def _make_sparse(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    os.truncate(target, (parameters[0] + 1) << 28)


def _instead(make: Callable[[Path, Path], object]) -> Callable[[Path, Path, list[int], bytes], None]:
    """An action that puts something else in the place of a file."""

    def act(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
        _remove(target, outside, parameters, content)
        make(target, outside)

    return act


def _bind_socket(target: Path, outside: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(target))


def _add_foreign(target: Path, outside: Path, parameters: list[int], content: bytes) -> None:
    (target.parent / FOREIGN).write_bytes(b"mine")


CONTENT_ACTIONS = (_cut_off, _overwrite, _overwrite_near_start, _insert, _replace, _nest, _make_sparse)
ACTIONS: tuple[Callable[[Path, Path, list[int], bytes], None], ...] = (
    _keep,
    _remove,
    _cut_off,
    _overwrite,
    _overwrite_near_start,
    _insert,
    _replace,
    _nest,
    _make_sparse,
    _add_foreign,
    _instead(lambda target, outside: target.symlink_to(outside / "letter.txt")),
    _instead(lambda target, outside: target.symlink_to(outside / "holiday")),
    _instead(lambda target, outside: target.symlink_to(target.name)),
    _instead(lambda target, outside: target.symlink_to("/dev/zero")),
    _instead(lambda target, outside: target.hardlink_to(outside / "letter.txt")),
    _instead(lambda target, outside: os.mkfifo(target)),
    _instead(lambda target, outside: target.mkdir()),
    _instead(_bind_socket),
)
