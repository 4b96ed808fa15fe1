"""Which files of a directory timebox has written: only those are removed, and only such a directory is replaced."""

import os
from contextlib import suppress
from pathlib import Path

from timebox.errors import RunError
from timebox.file_versions import MODEL_FORMAT, SUMMARY_FORMAT
from timebox.files import open_regular
from timebox.files.folders import DIRECTORY, FILE, Folder, not_a_file, target_of_temporary
from timebox.run.checkpoint import MANIFEST, is_checkpoint_file
from timebox.run.files import (
    CHECKPOINT,
    CLASSES,
    CONFIG,
    ESTIMATOR,
    EXAMPLES,
    METRICS,
    MODEL,
    MODEL_EXPORTS,
    PREDICTIONS,
    PRETRAINED,
    RANKS,
    REPLACEMENT,
    REPORT,
    STATUS,
    SUMMARY,
    SUSPECTS,
    THUMBNAILS,
    TRAINING_HASHES,
    read_json,
    read_training_hashes,
)
from timebox.run.json_values import from_values
from timebox.run.metrics_log import read_metrics
from timebox.run.model_config import ModelConfig

# The names of all files that timebox writes into a run directory, apart from those in checkpoint/.
RUN_FILES = frozenset(
    {
        *(MODEL, CONFIG, SUMMARY, METRICS, PREDICTIONS, TRAINING_HASHES, EXAMPLES, REPORT, RANKS, REPLACEMENT),
        *(ESTIMATOR, CLASSES, PRETRAINED, STATUS, SUSPECTS, THUMBNAILS, *MODEL_EXPORTS),
    }
)
# Those of a training that was killed before its first checkpoint.
_FIRST_FILES = frozenset({METRICS, TRAINING_HASHES, RANKS, SUMMARY, REPLACEMENT, PRETRAINED, STATUS})


def foreign_entry(folder: Folder) -> str | None:
    """The first entry of a run directory that timebox has not written, such as ``holiday.png``; None without any.

    A link is foreign, whatever its name.
    """
    for name in folder.names():
        kind = folder.kind(name)
        if name == CHECKPOINT and kind == DIRECTORY:
            with folder.folder(CHECKPOINT) as checkpoint:
                for inner in checkpoint.names():
                    if not _is_checkpoint_name(inner) or checkpoint.kind(inner) != FILE:
                        return os.path.join(CHECKPOINT, inner)  # noqa: PTH118  # of two names
        elif not _is_own_name(name) or kind not in (FILE, ""):  # the process that writes it may have removed it
            return name
    return None


def is_run(folder: Folder) -> bool:
    """Whether a directory is a run of timebox: its model.json is one of ours, or it is what a training leaves that was
    killed before its first checkpoint."""
    with suppress(RunError):
        where = repr(str(folder.path / CONFIG))
        if folder.kind(CONFIG):
            from_values(read_json(folder.path / CONFIG, MODEL_FORMAT), ModelConfig, where)
            return True
        return _is_begun_run(folder)
    return False


def _is_begun_run(folder: Folder) -> bool:
    """Raises RunError where a file is not ours."""
    names = {target_of_temporary(name) or name for name in folder.names()} - {CHECKPOINT, CONFIG}
    if METRICS not in names or not names <= _FIRST_FILES:
        return False
    first = next(read_metrics(folder.path / METRICS), None)
    # A training that was killed before its first flush leaves an empty metrics.jsonl.
    is_empty = first is None and _size_of(folder.path / METRICS) == 0
    if SUMMARY in names and not read_json(folder.path / SUMMARY, SUMMARY_FORMAT).get("stopped"):
        return False
    if folder.kind(TRAINING_HASHES) and _size_of(folder.path / TRAINING_HASHES):
        read_training_hashes(folder.path)
    return is_empty or (first is not None and not first[1])  # a format line


def _size_of(path: Path) -> int:
    try:
        with open_regular(path, follow=False) as file:
            return os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def check_no_links(folder: Folder) -> None:
    """Raise RunError where an own name in a run directory is a link, a pipe or anything but a file."""
    for name in folder.names():
        if name in RUN_FILES and (kind := folder.kind(name)) not in (FILE, ""):
            raise RunError(f"{str(folder.path / name)!r} cannot be used: {not_a_file(kind)}")
    if (kind := folder.kind(CHECKPOINT)) not in (DIRECTORY, ""):
        reason = not_a_file(kind).replace("the file itself", "the directory itself")
        raise RunError(f"{str(folder.path / CHECKPOINT)!r} cannot be used: {reason}")
    if kind:
        with folder.folder(CHECKPOINT) as checkpoint:
            for name in filter(is_checkpoint_file, checkpoint.names()):
                if (kind := checkpoint.kind(name)) not in (FILE, ""):
                    raise RunError(f"{str(checkpoint.path / name)!r} cannot be used: {not_a_file(kind)}")


def remove_checkpoint(folder: Folder) -> None:
    """Remove the checkpoint of a run; files that are not ours stay, and the directory with them.

    The manifest goes first: after a kill none is left that names a file that is gone.
    """
    with suppress(OSError), folder.folder(CHECKPOINT) as checkpoint:
        names = filter(_is_checkpoint_name, checkpoint.names())
        for name in sorted(names, key=lambda name: name != MANIFEST):
            if checkpoint.kind(name) == FILE:
                checkpoint.remove(name)
        folder.remove_folder(CHECKPOINT)


def remove_temporaries(folder: Folder) -> None:
    """Remove the unfinished files that a killed process has left in a run directory."""
    for name in folder.names():
        if target_of_temporary(name) in RUN_FILES and folder.kind(name) == FILE:
            folder.remove(name)


def remove_own_files(folder: Folder) -> None:
    """Remove all files of a run that timebox has written; the empty directory stays. A failure leaves the rest."""
    remove_checkpoint(folder)
    with suppress(OSError):
        # The token of an abandoned replacement goes last: as long as anything is left, it is known to be ours.
        for name in sorted(filter(_is_own_name, folder.names()), key=lambda name: name == REPLACEMENT):
            if folder.kind(name) == FILE:
                folder.remove(name)


def _is_own_name(name: str) -> bool:
    return name in RUN_FILES or target_of_temporary(name) in RUN_FILES


def _is_checkpoint_name(name: str) -> bool:
    return is_checkpoint_file(target_of_temporary(name) or name)
