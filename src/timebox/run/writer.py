"""Writes the files of a run directory, each whole or not at all."""

import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from timebox.clock import Deadline, now
from timebox.errors import OutputError, RunError
from timebox.file_versions import EXAMPLES_FORMAT, METRICS_FORMAT, MODEL_FORMAT, PREDICTIONS_FORMAT, SUMMARY_FORMAT
from timebox.files import sync_folder, write_durably, write_whole, written
from timebox.run.checkpoint import read_checkpoint, write_checkpoint
from timebox.run.directories import check_output_directory, remove_abandoned, replace_directory
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
    to_file,
    to_npz,
)
from timebox.run.metrics_log import MetricsLog, prefix_at_checkpoint
from timebox.run.model_config import TrainedModelConfig
from timebox.run.summary import FinishedSummary, StoppedSummary
from timebox.run.tensors import to_safetensors
from timebox.runtime.write_speed import SMALL_BYTES, WriteSpeed
from timebox.training.state import Snapshot

PROBE = "probe"  # a file beside the checkpoints that is written only to measure the time it takes


class RunWriter:
    """Writes one run directory: a new one in place; one that replaces another run beside it, until it is whole.

    Use :meth:`new` or :meth:`resumed` to make one.

    Attributes:
        out: the directory that the user asked for.
        path: the directory that is written.
        write_seconds: duration of the latest write of a small file.
        is_complete: whether summary.json is written.
    """

    def __init__(
        self, out: Path, path: Path, metrics: MetricsLog, created: bool, new_parents: Sequence[Path] = ()
    ) -> None:
        self.out, self.path, self.metrics, self._created = out, path, metrics, created
        self._new_parents = new_parents  # folders that were made for the run, the innermost first
        self.write_seconds, self.is_complete = 0.0, False
        self._writing_config = threading.Lock()

    @property
    def write_speed(self) -> WriteSpeed:
        """The speed at which files are written to this directory."""
        return WriteSpeed(self.write_seconds, lambda: self._byte_seconds)

    @cached_property
    def _byte_seconds(self) -> float:
        """Seconds per byte of a large file: the faster of two writes, as the first may wait for other processes.

        A failure is ignored here: it shows again when a file of the run is written.
        """
        folder, content = self.path / CHECKPOINT, np.arange(SMALL_BYTES // 4, dtype=np.float32).tobytes()
        moments = [now()]
        for _ in range(2):
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                write_durably(folder / PROBE, content)
            moments.append(now())
        (folder / PROBE).unlink(missing_ok=True)
        return min(after - before for before, after in pairwise(moments)) / SMALL_BYTES

    @classmethod
    def new(cls, out: Path, overwrite: bool) -> "RunWriter":
        """A writer of a directory that does not exist yet, is empty, or with ``overwrite`` holds a run.

        Raises UsageError for a place that must not be written to, OutputError for one that cannot.
        """
        replaces = check_output_directory(out, overwrite)
        created = replaces or not out.exists()
        new_parents = [parent for parent in out.parents if not parent.exists()]
        path = out
        with written(f"output directory {str(out)!r}"):
            out.parent.mkdir(parents=True, exist_ok=True)
            if replaces:
                remove_abandoned(out)
                path = Path(tempfile.mkdtemp(prefix=f".{out.name}.new-", dir=out.parent))
                shutil.copymode(out, path)
            path.mkdir(exist_ok=True)
            metrics = MetricsLog(path / METRICS)
        metrics.add(METRICS_FORMAT.numbered({}))
        return cls(out, path, metrics, created, new_parents)

    @classmethod
    def resumed(cls, path: Path, num_lines: int, step: int) -> "RunWriter":
        """A writer of a run that is resumed from a checkpoint after ``step`` steps and ``num_lines`` of metrics."""
        with written(f"run {str(path)!r}"):
            prefix = prefix_at_checkpoint(path / METRICS, num_lines, step)
            metrics = MetricsLog(path / METRICS, prefix.num_bytes)
        metrics.num_lines = prefix.num_lines
        if prefix.last_format != METRICS_FORMAT.newest:
            metrics.add(METRICS_FORMAT.numbered({}))
        # A run that was to replace another when it was killed still does so in the end.
        replacing = re.fullmatch(r"\.(.+)\.new-[^.]+", path.resolve().name)
        out = path.resolve().parent / replacing[1] if replacing else path
        return cls(out, path, metrics, created=False)

    def save_checkpoint(self, snapshot: Snapshot, config: TrainedModelConfig) -> None:
        """Write a checkpoint: from the first one on, the run can be loaded and resumed. Raises OSError."""
        self.metrics.flush()
        self._save_config(config)
        is_first = not (self.path / CHECKPOINT).exists()
        write_checkpoint(self.path / CHECKPOINT, snapshot)
        for folder in (self.path, self.path.parent) if is_first else ():
            sync_folder(folder)

    def save_model(self, model: nn.Module, config: TrainedModelConfig) -> None:
        """Write model.json and the final weights."""
        with self._writing(CONFIG):
            self._save_config(config)
        self._write(MODEL, to_safetensors(model.state_dict()))

    def _save_config(self, config: TrainedModelConfig) -> None:
        """Write model.json, unless it is there. The checkpointer's thread and the main thread may call this at once."""
        with self._writing_config:
            if not (self.path / CONFIG).is_file():
                write_whole(self.path / CONFIG, to_file(config, MODEL_FORMAT))

    @property
    def can_be_loaded(self) -> bool:
        """Whether there is a model, final or in a checkpoint. A damaged checkpoint counts: the user must see it."""
        try:
            return (self.path / MODEL).is_file() or read_checkpoint(self.path / CHECKPOINT) is not None
        except RunError:
            return True

    def save_training_hashes(self, hashes: NDArray[np.uint64]) -> None:
        """Write trained_on.npy: the hashes, sorted."""
        buffer = BytesIO()
        np.save(buffer, np.sort(hashes))
        self._write(TRAINING_HASHES, buffer.getvalue())

    def save_predictions(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write predictions.npz: a row for each scored image."""
        self._write(PREDICTIONS, to_npz(columns, PREDICTIONS_FORMAT))

    def save_examples(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write examples.npz: the images that the report shows."""
        self._write(EXAMPLES, to_npz(columns, EXAMPLES_FORMAT))

    def save_report(self, page: str) -> None:
        """Write report.html."""
        self._write(REPORT, page.encode("utf-8", "backslashreplace"))

    def save_summary(self, summary: FinishedSummary) -> None:
        """Write metrics.jsonl and summary.json of a finished run."""
        with self._writing(METRICS):
            self.metrics.flush()
        self._write(SUMMARY, to_file(summary, SUMMARY_FORMAT))
        self.is_complete = True

    def save_stopped(self, deadline: Deadline) -> None:
        """Write summary.json of a run that was stopped and can be resumed, unless the run is complete."""
        summary = StoppedSummary(
            stopped=True,
            late=deadline.late,
            budget_seconds=deadline.budget_seconds,
            elapsed_seconds=round(deadline.elapsed(), 3),
            phases={name: round(seconds, 3) for name, seconds in deadline.phases_so_far().items()},
        )
        if not self.is_complete:
            self._write(SUMMARY, to_file(summary, SUMMARY_FORMAT))

    def finish(self) -> None:
        """Remove the checkpoint, which the final model replaces, and move the run to where the user asked for it."""
        shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
        self.metrics.close()
        if self.path == self.out:
            return
        try:
            old = replace_directory(self.out, self.path) if self.out.exists() else self.path.rename(self.out)
        except OSError as error:
            raise OutputError(f"{str(self.out)!r} cannot be replaced: {error.strerror or error}") from error
        self.path = self.out
        if old != self.out:
            shutil.rmtree(old, ignore_errors=True)

    def close_unfinished(self) -> bool:
        """Close a run that ended early, and remove its files unless it has a model: whether it has one."""
        self.metrics.close()
        if self.can_be_loaded:
            return True
        if self._created:
            shutil.rmtree(self.path, ignore_errors=True)
            for parent in self._new_parents:
                with suppress(OSError):  # another run is there now
                    parent.rmdir()
        else:
            shutil.rmtree(self.path / CHECKPOINT, ignore_errors=True)
            for file in (METRICS, TRAINING_HASHES, CONFIG, RANKS):
                (self.path / file).unlink(missing_ok=True)
        return False

    def _write(self, name: str, content: bytes) -> None:
        before = now()
        with self._writing(name):
            # The sync after the model also secures the files written before it; a power cut may take later ones.
            (write_durably if name == MODEL else write_whole)(self.path / name, content)
        if len(content) <= SMALL_BYTES:
            self.write_seconds = now() - before

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Turn an OSError inside into an OutputError that names a file of the run."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{name} cannot be written in {str(self.out)!r}: {reason}") from error
