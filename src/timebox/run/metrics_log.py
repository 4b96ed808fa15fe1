"""metrics.jsonl: a line for each step, each validation, each rollback and an aborted last step of a training.

A line ``{"format": N}`` gives the format of the lines after it; it stands at the beginning, and where a newer version
resumed the training. Lines that have no such line before them are of format 1.
"""

import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct, structs

from timebox.errors import RunError, UsageError
from timebox.file_versions import FIRST_FORMAT, FORMAT_KEY, METRICS_FORMAT
from timebox.files import check_readable, lock, parse_json_object, read_lines
from timebox.files.folders import Folder
from timebox.run.files import METRICS, in_use
from timebox.run.json_values import Count, PositiveCount, Share, from_values
from timebox.training.schedule import StepPlan

Entry = Mapping[str, object]
MAX_LINE_BYTES = 1 << 16  # a line takes some hundred
# Seconds between writes of new lines.
WATCH_SECONDS = 1.0
MAX_CURVE_POINTS = 4000  # of a chart; a training may have many more steps


class StepPlanFields(Struct, frozen=True, kw_only=True):
    """The part of a step's line that a replay needs.

    Attributes:
        progress: share of the schedule that is done after the step.
        lr: the learning rate.
        momentum: of the optimizer.
        micro_batch: number of images computed at once.
        threads: number of torch's threads; no such key where the number does not change in the training.
    """

    progress: Share
    lr: Annotated[float, Meta(ge=0, le=sys.float_info.max)]
    momentum: Annotated[float, Meta(gt=0, lt=1)]
    micro_batch: PositiveCount
    threads: PositiveCount | None = None


class StepLine(StepPlanFields, frozen=True, kw_only=True):
    """A training step.

    Attributes:
        step: number of the step, from 1 on.
        epoch: passes over the training images, after the step.
        resolution: longer side of the step's images in pixels.
        loss: the training loss; null where it was infinite or NaN.
    """

    step: PositiveCount
    epoch: Annotated[float, Meta(ge=0)]
    resolution: PositiveCount
    loss: float | None


class ValidationLine(Struct, frozen=True, kw_only=True):
    """A validation during training, after ``step`` steps."""

    step: Count
    progress: Share
    val_accuracy: Share


class RollbackLine(Struct, frozen=True, kw_only=True):
    """A rollback to the state after ``step`` steps: the lines of later steps before this one no longer count."""

    step: Count
    rolled_back: Literal[True]


class AbortLine(Struct, frozen=True, kw_only=True):
    """The end of a training after ``step`` steps, because time ran out in the next step: it changed nothing."""

    step: Count
    aborted: Literal[True]


class FormatLine(Struct, frozen=True, kw_only=True):
    """The format of the lines after this one."""

    format: PositiveCount


class MetricsLog:
    """Collects lines and appends them to metrics.jsonl in :meth:`flush`, from any thread.

    After a failed write the lines are kept, and written with the next. The file is locked while it is open: opening it
    raises UsageError where another process writes it, OSError where it cannot be written to or is a link.

    Args:
        folder: the run directory.
        keep_bytes: the file is cut to this length.
    """

    def __init__(self, folder: Folder, keep_bytes: int = 0) -> None:
        self._file = folder.open_own(METRICS)
        try:
            lock(self._file)
            os.ftruncate(self._file, keep_bytes)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise UsageError(in_use(folder.path)) from error
            raise
        self._length = keep_bytes
        self._waiting: deque[bytes] = deque()
        self._writing = threading.Lock()
        self.num_lines = 0
        self._is_closed = threading.Event()
        threading.Thread(target=self._write_now_and_then, name="metrics", daemon=True).start()

    def _write_now_and_then(self) -> None:
        """Write the lines for those who watch, in a thread. A write that fails is repeated by the next flush."""
        while not self._is_closed.wait(WATCH_SECONDS):
            with suppress(OSError):
                self.flush(sync=False)

    def add(self, entry: Entry) -> None:
        """Append one line in memory; a thread writes it within a second, :meth:`flush` at once."""
        line = (json.dumps(entry) + "\n").encode()
        self._waiting.append(check_readable(line, MAX_LINE_BYTES, f"a line of {METRICS}"))
        self.num_lines += 1

    def flush(self, *, sync: bool = True) -> None:
        """Write all lines and sync the file. Raises OSError where that fails, as it does once the file is closed."""
        with self._writing:
            count = len(self._waiting)
            content = b"".join(self._waiting[i] for i in range(count))
            # A failed attempt may have written a part: it is overwritten.
            os.lseek(self._file, self._length, os.SEEK_SET)
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            if sync:
                os.fsync(self._file)
            self._length += written
            for _ in range(count):
                self._waiting.popleft()

    def close(self) -> None:
        """Close the file, which releases its lock."""
        self._is_closed.set()
        with self._writing:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def read_metrics(path: Path) -> Iterator[tuple[int, Entry]]:
    """Each whole line in the newest format, after the position in bytes where it ends; a format line is empty.

    Raises RunError where a line cannot be read.
    """
    return ((end, entry) for end, _, entry in _read(path))


def downsampled_metrics(path: Path, num_lines: int | None = None) -> list[Entry]:
    """All validations and rollbacks, and every n-th step, about 4,000 of them at most: enough for a chart.

    Args:
        num_lines: of the file, where that is known; else they are counted.
    """
    num_lines = sum(1 for _ in _lines(path)) if num_lines is None else num_lines
    return [entry for _, _, entry in _read(path, max(1, num_lines // MAX_CURVE_POINTS)) if entry]


def _lines(path: Path) -> Iterator[bytes]:
    try:
        yield from read_lines(path, MAX_LINE_BYTES)
    except OSError as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def _read(path: Path, stride: int = 1) -> Iterator[tuple[int, object, Entry]]:
    """The end in bytes, the format as written, and the values in the newest format, of each whole line; of lines with a
    loss, every ``stride``-th."""
    end = 0
    line_format: object = FIRST_FORMAT
    for number, line in enumerate(_lines(path)):
        if not line.endswith(b"\n"):
            return
        end += len(line)
        if number % stride and b'"loss"' in line:
            continue
        try:
            entry = parse_json_object(line)
        except ValueError as error:
            raise RunError(f"{str(path)!r} cannot be read: {error}") from error
        line_format = entry.pop(FORMAT_KEY, line_format)
        METRICS_FORMAT.check(line_format, repr(str(path)))
        if entry:
            entry = METRICS_FORMAT.upgraded({FORMAT_KEY: line_format, **entry}, repr(str(path)))
            del entry[FORMAT_KEY]
        yield end, line_format, entry


class MetricsPrefix(NamedTuple):
    """The first lines of a metrics.jsonl: their length in bytes, their number, and the format of the last."""

    num_bytes: int
    num_lines: int
    last_format: object


def prefix_at_checkpoint(path: Path, num_lines: int, step: int) -> MetricsPrefix:
    """The lines of metrics.jsonl that belong to a training as a checkpoint has it, after ``step`` steps.

    Args:
        num_lines: of the file, when the checkpoint was taken. Losses of its last steps may have arrived later: their
            lines follow directly, and belong to it too.
    """
    prefix = MetricsPrefix(0, 0, FIRST_FORMAT)
    for end, line_format, entry in _read(path):
        if prefix.num_lines >= num_lines and ("loss" not in entry or _step_of(entry) > step):
            break
        prefix = MetricsPrefix(end, prefix.num_lines + 1, line_format)
    return prefix


def final_step_plans(entries: Iterable[Entry], path: Path) -> list[StepPlan]:
    """The step plans that the final model is made of, without steps that a rollback undid.

    Args:
        path: the run, for messages.
    Raises:
        RunError: where a step is missing or damaged, and for a run that did not come to the end of its schedule.
    """
    step_plans: list[StepPlan] = []
    is_aborted = False
    where = f"metrics.jsonl of {str(path)!r}"
    for entry in entries:
        step = _step_of(entry)
        if entry.get("rolled_back"):
            if not 0 <= step <= len(step_plans):
                raise RunError(f"{where} is damaged: a rollback goes to a step that is not there")
            del step_plans[step:]
        elif entry.get("aborted"):
            is_aborted = True
        elif "loss" in entry:
            if step != len(step_plans) + 1:
                raise RunError(f"{where} is damaged: step {len(step_plans) + 1} is missing")
            fields = from_values(entry, StepPlanFields, f"step {step} in {where}")
            step_plans.append(StepPlan(**structs.asdict(fields)))
            is_aborted = False
    if not step_plans or (step_plans[-1].progress != 1.0 and not is_aborted):
        raise RunError(f"run {str(path)!r} did not come to the end of its schedule: there is nothing to replay")
    return step_plans


def _step_of(entry: Entry) -> int:
    """The step of a line, -1 where it has none."""
    step = entry.get("step")
    return step if isinstance(step, int) and step >= 0 else -1
