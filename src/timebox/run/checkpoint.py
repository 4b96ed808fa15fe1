"""Checkpoints on disk: whole or not there at all, and recognised by a checksum.

A folder holds one file of tensors and ``manifest.json``, which names it and its SHA-256, and tells how far
the training was. The manifest is replaced last, by a rename; the file it named before is removed only then.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from timebox.errors import RunError
from timebox.file_versions import CHECKPOINT_FORMAT
from timebox.files import open_regular, parse_json_object, read_regular, write_durably
from timebox.run.tensors import read_tensors
from timebox.training.state import Metadata, Snapshot

MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 22
_MAX_MANIFEST_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint found whole: where its tensors lie, and what the training noted beside them."""

    file: Path
    step: int
    progress: float
    metadata: Metadata

    def snapshot(self, expected: Mapping[str, Tensor]) -> Snapshot:
        """The training as it stood, on the CPU. Raises RunError where its tensors are not the ``expected`` ones."""
        return Snapshot(self.step, self.progress, read_tensors(self.file, expected), self.metadata)


def write_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write a snapshot, then remove the checkpoint before it. Raises OSError where it fails: the old one then stays."""
    folder.mkdir(exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in snapshot.tensors.items()})
    sha256 = hashlib.sha256(content).hexdigest()
    # A training that went back comes to the same step again: the file that the old manifest names must not be touched.
    name = f"{snapshot.step:09d}-{sha256[:8]}.safetensors"
    manifest = {
        "file": name,
        "sha256": sha256,
        "step": snapshot.step,
        "progress": snapshot.progress,
        "facts": dict(snapshot.metadata),
    }
    try:
        write_durably(folder / name, content)
        write_durably(folder / MANIFEST, (json.dumps(CHECKPOINT_FORMAT.numbered(manifest), indent=2) + "\n").encode())
    finally:
        _sweep(folder)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, None where none was finished. Raises RunError for one that is damaged."""
    manifest = _read_manifest(folder / MANIFEST)
    while manifest is not None:
        try:
            return _checked(folder, manifest)
        except RunError:
            # The training may have put the next one in its place meanwhile.
            before, manifest = manifest, _read_manifest(folder / MANIFEST)
            if manifest == before:
                raise
    return None


def _read_manifest(path: Path) -> dict[str, object] | None:
    try:
        return parse_json_object(read_regular(path, _MAX_MANIFEST_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def _checked(folder: Path, manifest: dict[str, object]) -> Checkpoint:
    """The checkpoint that a manifest describes, its checksum compared."""
    path = folder / MANIFEST
    match CHECKPOINT_FORMAT.upgraded(manifest, repr(str(path))):
        case {
            "file": str(name),
            "sha256": str(sha256),
            "step": int(step),
            "progress": float(progress),
            "facts": dict(facts),
        }:
            if Path(name).name != name or isinstance(step, bool) or step < 0 or not 0 <= progress <= 1:
                raise RunError(f"{str(path)!r} is damaged: its file, step or progress are none of a checkpoint")
            if _sha256_of(folder / name) != sha256:
                raise RunError(f"{str(folder / name)!r} is damaged: its checksum is not the one in {MANIFEST}")
            return Checkpoint(folder / name, step, progress, facts)
    raise RunError(f"{str(path)!r} is damaged: it is no manifest of a checkpoint")


def _sweep(folder: Path) -> None:
    """Remove all but the manifest and the file it names, also after a failure: a full disk needs the room."""
    try:
        named = parse_json_object(read_regular(folder / MANIFEST, _MAX_MANIFEST_BYTES)).get("file")
    except FileNotFoundError:
        named = None
    except (OSError, ValueError):
        return
    for file in folder.iterdir():
        if file.name not in (named, MANIFEST):
            file.unlink(missing_ok=True)


def _sha256_of(path: Path) -> str:
    try:
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
