"""Writing a run directory so that it is never half there."""

import ctypes
import glob
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

from timebox.clock import Deadline, now
from timebox.errors import OutputError, RunError, UsageError
from timebox.file_versions import EXAMPLES_FORMAT, METRICS_FORMAT, PREDICTIONS_FORMAT, SUMMARY_FORMAT
from timebox.files import sync_folder, write_durably, write_whole
from timebox.run.checkpoint import read_checkpoint, write_checkpoint
from timebox.run.files import (
    CHECKPOINT,
    CONFIG,
    EXAMPLES,
    METRICS,
    MODEL,
    PREDICTIONS,
    RANKS,
    REPORT,
    SUMMARY,
    TRAINING_HASHES,
    to_json,
    to_npz,
    to_safetensors,
)
from timebox.run.metrics_log import MetricsLog, length_up_to
from timebox.runtime.write_speed import SMALL_BYTES, WriteSpeed
from timebox.training.state import Snapshot

# A file beside the checkpoints that is written to see how long that takes.
PROBE = "probe"
# Of Linux's renameat2.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class RunWriter:
    """Writes one run directory: a new one in place; one that replaces another beside it, until it is whole.

    Made by :meth:`new` and :meth:`resumed`.
    """

    def __init__(self, out: Path, path: Path, metrics: MetricsLog, created: bool) -> None:
        self.out, self.path, self.metrics = out, path, metrics
        self._created = created
        self.write_seconds = 0.0  # what the latest small file took
        self.is_complete = False
        self._writing_config = threading.Lock()

    @property
    def write_speed(self) -> WriteSpeed:
        """What files take that are written to this directory."""
        return WriteSpeed(self.write_seconds, lambda: self._byte_seconds)

    @cached_property
    def _byte_seconds(self) -> float:
        """What a byte of a large file takes, measured on one that goes again.

        What cannot be written now is told when it has to be.
        The faster of two counts: the first may wait for what others have written.
        """
        folder, weights = self.path / CHECKPOINT, {"weights": torch.arange(SMALL_BYTES // 4, dtype=torch.float32)}
        moments = [now()]
        for _ in range(2):
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                write_durably(folder / PROBE, save(weights))
            moments.append(now())
        (folder / PROBE).unlink(missing_ok=True)
        return min(after - before for before, after in pairwise(moments)) / SMALL_BYTES

    @classmethod
    def new(cls, out: Path, overwrite: bool) -> "RunWriter":
        """A run directory that does not exist yet, or is empty, or with ``overwrite`` holds a run.

        Raises:
            UsageError: for a place that is taken. OutputError: for one that cannot be written to.
        """
        replaces = check_free(out, overwrite)
        created = replaces or not out.exists()
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            path = out
            if replaces:
                _remove_abandoned(out)
                path = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
                shutil.copymode(out, path)
            path.mkdir(exist_ok=True)
            metrics = MetricsLog(path / METRICS)
            metrics.add(METRICS_FORMAT.numbered({}))
            return cls(out, path, metrics, created)
        except OSError as error:
            raise OutputError(f"output directory {str(out)!r} cannot be written to: {_reason(error)}") from error

    @classmethod
    def resumed(cls, path: Path, num_lines: int, step: int) -> "RunWriter":
        """The directory of a run that goes on after ``step`` steps, as it was after ``num_lines`` lines of metrics."""
        try:
            length, num_kept, last_format = length_up_to(path / METRICS, num_lines, step)
            metrics = MetricsLog(path / METRICS, length)
        except OSError as error:
            raise OutputError(f"run {str(path)!r} cannot be written to: {_reason(error)}") from error
        metrics.num_lines = num_kept
        if last_format != METRICS_FORMAT.newest:
            metrics.add(METRICS_FORMAT.numbered({}))
        # A run that was to replace another goes on to do so.
        replacing = re.fullmatch(r"\.(.+)\.new-[^.]+", path.resolve().name)
        out = path.resolve().parent / replacing[1] if replacing else path
        return cls(out, path, metrics, created=False)

    def save_checkpoint(self, snapshot: Snapshot, config: Mapping[str, object]) -> None:
        """Keep a training as it stands: from the first on, the run can be loaded and resumed. Raises OSError."""
        self.metrics.flush()
        self._save_config(config)
        first = not (self.path / CHECKPOINT).exists()
        write_checkpoint(self.path / CHECKPOINT, snapshot)
        if first:
            for folder in (self.path, self.path.parent):
                sync_folder(folder)

    def save_model(self, model: nn.Module, config: Mapping[str, object]) -> None:
        """Write configuration and final weights."""
        try:
            self._save_config(config)
        except OSError as error:
            raise OutputError(f"{CONFIG} cannot be written in {str(self.out)!r}: {_reason(error)}") from error
        self._write(MODEL, to_safetensors(model))

    def _save_config(self, config: Mapping[str, object]) -> None:
        """Write model.json once; a checkpoint may be about to, in a thread of its own."""
        with self._writing_config:
            if not (self.path / CONFIG).is_file():
                write_whole(self.path / CONFIG, to_json(config))

    @property
    def can_be_loaded(self) -> bool:
        """Whether there is a model already, final or of a checkpoint."""
        try:
            return (self.path / MODEL).is_file() or read_checkpoint(self.path / CHECKPOINT) is not None
        except RunError:  # a damaged one is still for its owner to see
            return True

    def save_training_hashes(self, hashes: NDArray[np.uint64]) -> None:
        """Write the hashes of the images trained on, sorted."""
        buffer = BytesIO()
        np.save(buffer, np.sort(hashes))
        self._write(TRAINING_HASHES, buffer.getvalue())

    def save_predictions(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write predictions.npz, one row per scored image."""
        self._write(PREDICTIONS, to_npz(columns, PREDICTIONS_FORMAT))

    def save_examples(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write examples.npz, the images that the report shows."""
        self._write(EXAMPLES, to_npz(columns, EXAMPLES_FORMAT))

    def save_report(self, page: str) -> None:
        """Write report.html."""
        self._write(REPORT, page.encode("utf-8", "backslashreplace"))

    def save_summary(self, summary: Mapping[str, object]) -> None:
        """Write summary.json and bring the metrics to the disk."""
        try:
            self.metrics.flush()
        except OSError as error:
            raise OutputError(f"{METRICS} cannot be written in {str(self.out)!r}: {_reason(error)}") from error
        self._write(SUMMARY, to_json(SUMMARY_FORMAT.numbered(summary)))
        self.is_complete = True

    def save_stopped(self, deadline: Deadline) -> None:
        """Write the summary of a run that was stopped and can be resumed; one that is complete stays so."""
        if self.is_complete:
            return
        summary = {
            "stopped": True,
            "late": deadline.late,
            "budget_seconds": deadline.budget_seconds,
            "elapsed_seconds": round(deadline.elapsed(), 3),
            "phases": {name: round(seconds, 3) for name, seconds in deadline.phases_so_far().items()},
        }
        self._write(SUMMARY, to_json(SUMMARY_FORMAT.numbered(summary)))

    def finish(self) -> None:
        """Remove the checkpoint, which the final model has made idle, and put the run where it belongs."""
        shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
        self.metrics.close()
        if self.path == self.out:
            return
        try:
            old = _replace_folder(self.out, self.path) if self.out.exists() else self.path.rename(self.out)
        except OSError as error:
            raise OutputError(f"{str(self.out)!r} cannot be replaced: {_reason(error)}") from error
        self.path = self.out
        if old != self.out:
            shutil.rmtree(old, ignore_errors=True)

    def give_up(self) -> bool:
        """Keep what can be loaded, and say whether there is; without a model leave nothing behind."""
        self.metrics.close()
        if self.can_be_loaded:
            return True
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
            for file in (METRICS, TRAINING_HASHES, CONFIG, RANKS):
                (self.path / file).unlink(missing_ok=True)
        return False

    def _write(self, name: str, content: bytes) -> None:
        before = now()
        try:
            # The model's own write makes sure of the files before it; those after it, a power cut may take.
            (write_durably if name == MODEL else write_whole)(self.path / name, content)
        except OSError as error:
            raise OutputError(f"{name} cannot be written in {str(self.out)!r}: {_reason(error)}") from error
        if len(content) <= SMALL_BYTES:
            self.write_seconds = now() - before


def _replace_folder(out: Path, new: Path) -> Path:
    """Put a folder in the place of another; where the old one lies then.

    At once where the system can exchange two names, as Linux does on most file systems; else there is a moment in which
    the place is empty.
    """
    if _exchange(out, new):
        return new
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old / "run")
    new.rename(out)
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one instant; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    done: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0


def _remove_abandoned(out: Path) -> None:
    """Remove what replacements of a run left behind when they were killed."""
    for path in out.parent.glob(f".{glob.escape(out.name)}.old-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in out.parent.glob(f".{glob.escape(out.name)}.new-*"):
        try:
            MetricsLog(path / METRICS).close()
        except (OSError, UsageError):
            continue
        shutil.rmtree(path, ignore_errors=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def check_free(out: Path, overwrite: bool) -> bool:
    """Whether an existing run is to be replaced; raises UsageError where the place is taken."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"output {str(out)!r} is a file; give a directory that is new or empty")
    try:
        taken = out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise OutputError(f"output directory {str(out)!r} cannot be read: {error.strerror or error}") from error
    if not taken:
        return False
    if not overwrite:
        raise UsageError(f"output directory {str(out)!r} is not empty; give another, or --overwrite to replace a run")
    if not ((out / CONFIG).is_file() or (out / SUMMARY).is_file() or _was_killed_early(out)):
        raise UsageError(f"output directory {str(out)!r} holds something that is no timebox run; it is not overwritten")
    if out.resolve() == Path.cwd():
        raise UsageError(f"output directory {str(out)!r} is the current one and cannot be replaced; give another")
    return True


def _was_killed_early(out: Path) -> bool:
    """Whether all that a directory holds was left by a training killed before its first checkpoint."""
    names = {path.name for path in out.iterdir()}
    return METRICS in names and names <= {
        METRICS,
        TRAINING_HASHES,
        RANKS,
        CHECKPOINT,
        *(f".{name}.tmp" for name in (TRAINING_HASHES, CONFIG, RANKS)),
    }
