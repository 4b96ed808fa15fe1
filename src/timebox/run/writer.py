"""Writes the files of a run directory, each whole or not at all."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from timebox.clock import Deadline, now
from timebox.errors import OutputError, RunError
from timebox.file_versions import (
    EXAMPLES_FORMAT,
    METRICS_FORMAT,
    MODEL_FORMAT,
    PREDICTIONS_FORMAT,
    STATUS_FORMAT,
    SUMMARY_FORMAT,
    SUSPECTS_FORMAT,
    THUMBNAILS_FORMAT,
)
from timebox.files import written
from timebox.files.folders import FILE, Folder
from timebox.run.checkpoint import MANIFEST, PROBE, read_checkpoint, write_checkpoint
from timebox.run.directories.output import ClaimedOutput, claim_default_output, claim_output, resolve_link
from timebox.run.directories.own_files import (
    check_no_links,
    remove_checkpoint,
    remove_own_files,
    remove_temporaries,
)
from timebox.run.directories.replacement import discard, make_beside, place_of, put_in_place, remove_abandoned
from timebox.run.files import (
    CHECKPOINT,
    CONFIG,
    EXAMPLES,
    METRICS,
    MODEL,
    PREDICTIONS,
    PRETRAINED,
    REPORT,
    STATUS,
    SUMMARY,
    SUSPECTS,
    THUMBNAILS,
    TRAINING_HASHES,
    to_file,
    to_npy,
    to_npz,
)
from timebox.run.metrics_log import MetricsLog, prefix_at_checkpoint
from timebox.run.model_config import TrainedModelConfig
from timebox.run.summary import FinishedSummary, StoppedSummary, TrainingStatus
from timebox.run.tensors import to_safetensors
from timebox.runtime.write_speed import SMALL_BYTES, WriteSpeed, WriteTime
from timebox.training.state import Snapshot

# As large as the weights of a small model.
PROBE_CONTENT = bytes(range(256)) * 1024


class RunWriter:
    """Writes one run directory: a new one in place; one that replaces another run beside it, until it is whole.

    Use :meth:`new`, :meth:`new_in_runs` or :meth:`resumed` to make one. It holds the lock of the directory, and of the
    one to be replaced, until :meth:`close`.

    Args:
        out: the directory that the user asked for.
        folder: the directory that is written, locked.
        claim: how ``out`` was taken for a new run; None for one that is resumed.
        replaced: the directory whose run is replaced, locked; None without one.
    Attributes:
        path: the directory that is written.
        write_time: of a small file, as the disk is now.
        is_complete: whether summary.json is written.
        waits_for_disk: whether files are synced. If not, a kill leaves them whole, a power cut perhaps not.
    """

    def __init__(
        self,
        out: Path,
        folder: Folder,
        metrics: MetricsLog,
        claim: ClaimedOutput | None = None,
        replaced: Folder | None = None,
    ) -> None:
        self.out, self.path, self.metrics = out, folder.path, metrics
        self._folder, self._claim, self._replaced = folder, claim, replaced
        self.write_time, self.is_complete, self.waits_for_disk = WriteTime(now), False, True
        self._writing_config = threading.Lock()

    @property
    def write_speed(self) -> WriteSpeed:
        """The speed at which files are written to this directory now."""
        return WriteSpeed(self.write_time.seconds, lambda: self._byte_seconds)

    @cached_property
    def _byte_seconds(self) -> float:
        """Seconds per byte of a large file: the faster of two writes, as the first may wait for other processes.

        A failure is ignored here: it shows again when a file of the run is written.
        """
        content = np.arange(SMALL_BYTES // 4, dtype=np.float32).tobytes()
        moments = [now()]
        for _ in range(2):
            with suppress(OSError), self._folder.folder(CHECKPOINT, create=True) as folder:
                folder.write_durably(PROBE, content)
            moments.append(now())
        with suppress(OSError), self._folder.folder(CHECKPOINT) as folder:
            folder.remove(PROBE)
        return min(after - before for before, after in pairwise(moments)) / SMALL_BYTES

    @classmethod
    def new(cls, out: Path, overwrite: bool) -> "RunWriter":
        """A writer of a directory that does not exist yet, is empty, or with ``overwrite`` holds a run.

        Raises UsageError for a place that must not be written to or that another process holds, OutputError for one
        that cannot be written to.
        """
        out = resolve_link(out)
        claim = claim_output(out, overwrite)
        try:
            with written(f"output directory {str(out)!r}"):
                if not claim.replaces:
                    return cls._begun(out, claim.folder, claim)
                remove_abandoned(out, claim.folder)
                return cls._begun(out, make_beside(out, claim.folder), claim)
        except BaseException:
            claim.give_up()
            raise

    @classmethod
    def new_in_runs(cls, name: str) -> "RunWriter":
        """A writer of a new directory in ``runs/``, named after data and the time of day."""
        claim = claim_default_output(name)
        try:
            with written(f"output directory {str(claim.folder.path)!r}"):
                return cls._begun(claim.folder.path, claim.folder, claim)
        except BaseException:
            claim.give_up()
            raise

    @classmethod
    def _begun(cls, out: Path, folder: Folder, claim: ClaimedOutput) -> "RunWriter":
        try:
            metrics = MetricsLog(folder)
        except BaseException:
            folder.close()
            raise
        metrics.add(METRICS_FORMAT.numbered({}))
        return cls(out, folder, metrics, claim, claim.folder if claim.replaces else None)

    @classmethod
    def resumed(cls, folder: Folder, num_lines: int, step: int) -> "RunWriter":
        """A writer of a run that is resumed from a checkpoint after ``step`` steps and ``num_lines`` of metrics.

        Args:
            folder: the run directory, locked; the writer closes it in the end.
        Raises:
            RunError: where a link lies in the run. UsageError: where the run that it replaces must not be replaced.
        """
        path = folder.path
        check_no_links(folder)
        # A run that was to replace another when it was killed still does so in the end.
        out = place_of(path)
        replaced = claim_output(out, overwrite=True).folder if out and out.exists() else None
        try:
            with written(f"run {str(path)!r}"):
                remove_temporaries(folder)
                prefix = prefix_at_checkpoint(path / METRICS, num_lines, step)
                metrics = MetricsLog(folder, prefix.num_bytes)
        except BaseException:
            if replaced:
                replaced.close()
            raise
        metrics.num_lines = prefix.num_lines
        if prefix.last_format != METRICS_FORMAT.newest:
            metrics.add(METRICS_FORMAT.numbered({}))
        writer = cls(out or path, folder, metrics, replaced=replaced)
        if out:
            writer.path = path.resolve()  # no name such as "." can be exchanged
        return writer

    def save_status(self, status: TrainingStatus) -> None:
        """Write status.json, without waiting for the disk."""
        with self._writing(STATUS):
            self._folder.write_unsynced(STATUS, to_file(status, STATUS_FORMAT))

    def remove_summary(self) -> None:
        """Remove the summary of a stopped run that is resumed."""
        with written(f"run {str(self.path)!r}"):
            self._folder.remove(SUMMARY)

    def save_checkpoint(self, snapshot: Snapshot, config: TrainedModelConfig) -> None:
        """Write a checkpoint: from the first one on, the run can be loaded and resumed. Raises OSError."""
        self.metrics.flush()
        self._save_config(config)
        with self._folder.folder(CHECKPOINT, create=True) as checkpoint:
            is_first = not checkpoint.kind(MANIFEST)
            write_checkpoint(checkpoint, snapshot)
        if is_first:
            self._folder.sync()
            with suppress(PermissionError), Folder(self.path.parent) as parent:
                parent.sync()

    def probe(self) -> None:
        """Write and remove a small file beside the checkpoint, to measure the disk as it is now. Raises OSError."""
        with self._folder.folder(CHECKPOINT, create=True) as checkpoint:
            with self.write_time.measure():
                checkpoint.write_whole(PROBE, PROBE_CONTENT)
            checkpoint.remove(PROBE)

    def save_model(self, model: nn.Module, config: TrainedModelConfig) -> None:
        """Write model.json and the final weights; see :meth:`sync_model`."""
        with self._writing(CONFIG):
            self._save_config(config)
        self._write(MODEL, to_safetensors(model.state_dict()))

    def save_pretrained(self, classifier: nn.Module) -> None:
        """Write pretrained.safetensors: the classifier on pretrained features."""
        self._write(PRETRAINED, to_safetensors(classifier.state_dict()))

    def remove_pretrained(self) -> None:
        """Remove the classifier on pretrained features, which the summary does not blend in."""
        with self._writing(PRETRAINED):
            self._folder.remove(PRETRAINED)

    def sync_model(self) -> None:
        """Write the names of the files to the disk: from then on the model and all before it survive a power cut."""
        with self._writing(MODEL), self.write_time.measure():
            self._folder.sync()

    def _save_config(self, config: TrainedModelConfig) -> None:
        """Write model.json, unless it is there. The checkpointer's thread and the main thread may call this at once."""
        with self._writing_config:
            if self._folder.kind(CONFIG) != FILE:
                self._folder.write_whole(CONFIG, to_file(config, MODEL_FORMAT))

    @property
    def can_be_loaded(self) -> bool:
        """Whether there is a model, final or in a checkpoint. A damaged checkpoint counts: the user must see it."""
        try:
            return self._folder.kind(MODEL) == FILE or read_checkpoint(self.path / CHECKPOINT) is not None
        except RunError:
            return True

    def save_training_hashes(self, hashes: NDArray[np.uint64]) -> None:
        """Write trained_on.npy: the hashes, sorted."""
        self._write(TRAINING_HASHES, to_npy(np.sort(hashes)))

    def save_predictions(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write predictions.npz: a row for each scored image."""
        self._write(PREDICTIONS, to_npz(columns, PREDICTIONS_FORMAT))

    def save_examples(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write examples.npz: the images that the report shows."""
        self._write(EXAMPLES, to_npz(columns, EXAMPLES_FORMAT))

    def save_suspects(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write suspects.npz, the training images whose label the training doubts, without waiting for the disk."""
        with self._writing(SUSPECTS):
            self._folder.write_unsynced(SUSPECTS, to_npz(columns, SUSPECTS_FORMAT))

    def save_thumbnails(self, columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write thumbnails.npz, small images of the scored images, without waiting for the disk."""
        with self._writing(THUMBNAILS):
            self._folder.write_unsynced(THUMBNAILS, to_npz(columns, THUMBNAILS_FORMAT))

    def save_report(self, page: str) -> None:
        """Write report.html."""
        self._write(REPORT, page.encode("utf-8", "backslashreplace"))

    def save_summary(self, summary: FinishedSummary) -> None:
        """Write metrics.jsonl and summary.json of a finished run."""
        with self._writing(METRICS):
            self.metrics.flush(sync=self.waits_for_disk)
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
        remove_checkpoint(self._folder)
        self._remove_status()
        self.metrics.close()
        if self.path != self.out:
            put_in_place(self._folder, self.path, self.out, self._replaced)
            self.path = self.out

    def close_unfinished(self) -> bool:
        """End a run that ended early, and remove its files unless it has a model: whether it has one."""
        self.metrics.close()
        self._remove_status()
        if self.can_be_loaded:
            return True
        if self._claim is None:  # it was resumed, and is damaged now
            return False
        if self._replaced:
            discard(self._folder, self.out, self._replaced)
        else:
            remove_own_files(self._folder)
            self._claim.give_up()
        return False

    def _remove_status(self) -> None:
        with suppress(OSError):
            self._folder.remove(STATUS)

    def close(self) -> None:
        """Close the files, and let other processes write the run. May be called twice."""
        self.metrics.close()
        self._folder.close()
        if self._replaced:
            self._replaced.close()

    def _write(self, name: str, content: bytes) -> None:
        is_small = len(content) <= SMALL_BYTES
        with self._writing(name), self.write_time.measure() if is_small else nullcontext():
            (self._folder.write_whole if self.waits_for_disk else self._folder.write_unsynced)(name, content)

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Turn an OSError inside into an OutputError that names a file of the run."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{name} cannot be written in {str(self.out)!r}: {reason}") from error
