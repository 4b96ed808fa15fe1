"""Checkpoints on disk: whole or not there at all, and recognised by a checksum.

A folder holds one file of tensors and ``manifest.json``, which names it and its SHA-256, and tells how far
the training was. The manifest is replaced last, by a rename; the file it named before is removed only then.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from timebox.engine.state import Facts, Snapshot
from timebox.engine.tensors import read_tensors
from timebox.errors import RunError
from timebox.files import open_regular, parse_json_object, read_regular

MANIFEST = "manifest.json"
FORMAT = 1
_CHUNK_BYTES = 1 << 22
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint found whole: where its tensors lie, and what the training noted beside them."""

    file: Path
    step: int
    progress: float
    facts: Facts

    def snapshot(self, expected: Mapping[str, Tensor]) -> Snapshot:
        """The training as it stood, on the CPU. Raises RunError where its tensors are not the ``expected`` ones."""
        return Snapshot(self.step, self.progress, read_tensors(self.file, expected), self.facts)


def write_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, then remove the checkpoint before it. Raises OSError where it fails: the old one then stays."""
    folder.mkdir(exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()})
    name = f"{snapshot.step:09d}.safetensors"
    write_durably(folder / name, content)
    manifest = {
        "format": FORMAT,
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "step": snapshot.step,
        "progress": snapshot.progress,
        "facts": dict(snapshot.facts),
    }
    write_durably(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    for file in folder.iterdir():
        if file.name not in (name, MANIFEST):
            file.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, None where none was finished. Raises RunError for one that is damaged."""
    path = folder / MANIFEST
    try:
        manifest = parse_json_object(read_regular(path, _MAX_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
    kinds = {"file": str, "sha256": str, "step": int, "progress": float, "facts": dict}
    if not all(isinstance(manifest.get(key), kind) for key, kind in kinds.items()):
        raise RunError(f"{str(path)!r} is damaged: it is no manifest of a checkpoint")
    name, step, progress = str(manifest["file"]), int(str(manifest["step"])), float(str(manifest["progress"]))
    if manifest.get("format") != FORMAT or Path(name).name != name or step < 0 or not 0 <= progress <= 1:
        raise RunError(f"{str(path)!r} is damaged, or was written by another version of timebox")
    if _sha256_of(folder / name) != manifest["sha256"]:
        raise RunError(f"{str(folder / name)!r} is damaged: its checksum is not the one in {MANIFEST}")
    facts = manifest["facts"]
    assert isinstance(facts, dict)
    return Checkpoint(folder / name, step, progress, facts)


def write_durably(path: Path, content: bytes) -> None:
    """A file that is there whole or not at all, also after a power cut. Raises OSError; nothing is left behind then."""
    temporary = path.parent / f".{path.name}.tmp"
    try:
        with temporary.open("wb") as file:
            for start in range(0, len(content), _CHUNK_BYTES):
                file.write(content[start : start + _CHUNK_BYTES])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Let a rename reach the disk, where folders can be synced."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256_of(path: Path) -> str:
    try:
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
