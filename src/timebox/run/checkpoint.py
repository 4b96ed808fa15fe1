"""The checkpoint directory of a run: one file of tensors, and ``manifest.json``, which names it and its SHA-256.

The manifest is replaced last, by a rename, and the file that it named before is removed only then: whenever the process
is killed, the manifest and the file it names belong together.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from timebox.errors import RunError
from timebox.file_versions import CHECKPOINT_FORMAT
from timebox.files import open_regular, parse_json_object, read_open
from timebox.files.folders import FILE, NOT_FOLLOWED, Folder, target_of_temporary
from timebox.recipes import Recipe
from timebox.run.files import MAX_JSON_BYTES, read_object, to_file
from timebox.run.json_values import MAX_INT, Count, PhaseSeconds, Seconds, Share, from_values, valid_values
from timebox.run.tensors import check_length, read_tensors, to_safetensors
from timebox.runtime.precision import PRECISIONS, Precision
from timebox.training.state import Metadata, Snapshot, TrainingState

MANIFEST = "manifest.json"
PROBE = "probe"  # a file that is written only to measure the time it takes
_TENSORS = re.compile(r"\d{9,}-[0-9a-f]{8}\.safetensors")


class ResumeState(Struct, frozen=True, kw_only=True):
    """The values besides the tensors that an exact resume needs.

    Attributes:
        lr_factor: factor that rollbacks have put on the learning rate, above 0 and at most 1.
        micro_batch: number of images computed at once, 2 or more.
        step_seconds: seconds per step, as last measured; 0 where no clock is read.
        metrics_lines: number of lines of metrics.jsonl when the checkpoint was taken.
        budget_seconds: the budget; null where the steps are counted.
        phases: seconds used so far, by phase.
        trained_on_other_machine: whether a part was trained on another machine, or with other versions.
    """

    lr_factor: Annotated[float, Meta(gt=0, le=1)]
    micro_batch: Annotated[int, Meta(ge=2, le=MAX_INT)]
    step_seconds: Seconds = 0.0
    metrics_lines: Count = 0
    budget_seconds: Seconds | None = None
    phases: PhaseSeconds | None = None
    trained_on_other_machine: bool = False


class Manifest(Struct, frozen=True, kw_only=True):
    """manifest.json of a checkpoint.

    Attributes:
        file: name of the file of tensors, in the same directory.
        sha256: SHA-256 of the file, in hexadecimal digits.
        step: number of training steps taken.
        progress: share of the schedule that is done.
        training_state: a :class:`ResumeState`; predictions do without it.
    """

    file: str
    sha256: str
    step: Count
    progress: Share
    training_state: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A whole checkpoint on disk, its checksum compared.

    Attributes:
        metadata: the training state of its manifest, as it was read.
    """

    file: Path
    step: int
    progress: float
    metadata: Metadata

    @cached_property
    def resume_state(self) -> ResumeState:
        """The training state; damaged values that have a default take it. Raises RunError where another is damaged."""
        where = f"training_state in {str(self.file.with_name(MANIFEST))!r}"
        return from_values(valid_values(self.metadata, ResumeState), ResumeState, where)

    def snapshot(self, expected: Mapping[str, Tensor]) -> Snapshot:
        """The checkpoint in memory, on the CPU. Raises RunError unless its tensors have the names, shapes and dtypes of
        ``expected``."""
        return Snapshot(self.step, self.progress, read_tensors(self.file, expected), self.metadata)


def is_checkpoint_file(name: str) -> bool:
    """Whether a name in a checkpoint directory is one that timebox writes there."""
    return name in (MANIFEST, PROBE) or _TENSORS.fullmatch(name) is not None


def write_checkpoint(folder: Folder, snapshot: Snapshot) -> None:
    """Write a snapshot, then remove the checkpoint before it. Raises OSError where writing fails: the old one stays."""
    content = to_safetensors(snapshot.tensors)
    sha256 = hashlib.sha256(content).hexdigest()
    # After a rollback the training reaches the same step again: the file that the old manifest names must not change.
    name = f"{snapshot.step:09d}-{sha256[:8]}.safetensors"
    state = dict(snapshot.metadata)
    manifest = Manifest(file=name, sha256=sha256, step=snapshot.step, progress=snapshot.progress, training_state=state)
    try:
        folder.write_durably(name, content)
        folder.write_durably(MANIFEST, to_file(manifest, CHECKPOINT_FORMAT))
    finally:
        _remove_other_files(folder)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, None where none was finished. Raises RunError for one that is damaged."""
    if folder.is_symlink():
        raise RunError(f"{str(folder)!r} cannot be read: {NOT_FOLLOWED.replace('the file', 'the directory')}")
    values = read_object(folder / MANIFEST)
    while values is not None:
        try:
            return _open_checkpoint(folder, values)
        except RunError:
            # A running training may have replaced it meanwhile: read again until the manifest stays the same.
            before, values = values, read_object(folder / MANIFEST)
            if values == before:
                raise
    return None


def model_weights(
    checkpoint: Checkpoint, model: nn.Module, recipe: Recipe, plan: object, where: str
) -> dict[str, Tensor]:
    """The weights of a network in a checkpoint, averaged where the recipe averages them.

    Args:
        model: the network of the recipe, with any weights.
        plan: the plan of the run's model.json; its precision decides which tensors the checkpoint has.
        where: the name of that file, in messages.
    Raises:
        RunError: for a plan without a precision, and a checkpoint that does not fit the network.
    """
    precision = plan.get("precision") if isinstance(plan, Mapping) else None
    if precision not in PRECISIONS:
        raise RunError(f"{where} is damaged: its plan has no precision")
    state = TrainingState(model, recipe, Precision(str(precision), torch.device("cpu")))
    tensors = checkpoint.snapshot(state.tensors()).tensors
    prefix = "model." if state.average.model is model else "average."
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _open_checkpoint(folder: Path, values: Mapping[str, object]) -> Checkpoint:
    """The checkpoint that a manifest describes, its checksum compared."""
    where = repr(str(folder / MANIFEST))
    manifest = from_values(CHECKPOINT_FORMAT.upgraded(values, where), Manifest, where)
    file = folder / manifest.file
    if Path(manifest.file).name != manifest.file:
        raise RunError(f"{where} is damaged: its file is not the name of a file in the same directory")
    check_length(file)
    if _sha256_of(file) != manifest.sha256:
        raise RunError(f"{str(file)!r} is damaged: its checksum is not the one in {MANIFEST}")
    return Checkpoint(file, manifest.step, manifest.progress, manifest.training_state)


def _remove_other_files(folder: Folder) -> None:
    """Remove earlier checkpoints and unfinished files, also after a failure: a full disk needs the room.

    Files that timebox has not written stay.
    """
    try:
        with folder.open_regular(MANIFEST) as file:
            current = parse_json_object(read_open(file, MAX_JSON_BYTES)).get("file")
    except FileNotFoundError:
        current = None
    except (OSError, ValueError):
        return
    for name in folder.names():
        is_own = is_checkpoint_file(target_of_temporary(name) or name)
        if is_own and name not in (current, MANIFEST) and folder.kind(name) == FILE:
            folder.remove(name)


def _sha256_of(path: Path) -> str:
    try:
        with open_regular(path, follow=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error
