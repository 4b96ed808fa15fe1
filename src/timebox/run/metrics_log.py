"""metrics.jsonl: a line for each step, each validation and each rollback of a training.

A line of its own says which format the lines after it have, at the beginning and where a newer version goes on; lines
without such a line before them are of format 1.
"""

import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from pathlib import Path

from timebox.errors import RunError, UsageError
from timebox.file_versions import KEY, METRICS_FORMAT, UNNUMBERED
from timebox.files import lock, open_regular, parse_json_object
from timebox.training.schedule import StepPlan

Entry = Mapping[str, object]
# To draw a curve, of trainings with many more steps.
MAX_CURVE_POINTS = 4000


class MetricsLog:
    """Collects lines and appends them to a file whenever asked to, from any thread.

    A write that fails loses nothing: the lines are kept, and written with the next. The file is locked for as long as
    it is open, so that two processes cannot write one run.

    Args:
        path: the file.
        keep: its first so many bytes stay, the rest is cut off.
    Raises:
        UsageError: where another process writes it. OSError: where it cannot be written to.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            lock(self._file)
            os.ftruncate(self._file, keep)
        except OSError as error:
            os.close(self._file)
            if isinstance(error, BlockingIOError):
                raise UsageError(f"run {str(path.parent)!r} is being written by another process") from error
            raise
        self._length = keep
        self._waiting: deque[bytes] = deque()
        self._writing = threading.Lock()
        self.num_lines = 0

    def add(self, entry: Entry) -> None:
        """Take in one line; nothing is written yet."""
        self._waiting.append((json.dumps(entry) + "\n").encode())
        self.num_lines += 1

    def flush(self) -> None:
        """Bring all lines to the disk. Raises OSError where that fails, as it does once the file is closed."""
        with self._writing:
            count = len(self._waiting)
            content = b"".join(self._waiting[i] for i in range(count))
            # What a failed attempt left behind is written over.
            os.lseek(self._file, self._length, os.SEEK_SET)
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
            self._length += written
            for _ in range(count):
                self._waiting.popleft()

    def close(self) -> None:
        """Let go of the file and its lock, for good."""
        with self._writing:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def read_metrics(path: Path) -> Iterator[tuple[int, Entry]]:
    """Each whole line, brought to the newest format, and where it ends in bytes; one that names a format is empty.

    Raises RunError where one cannot be read.
    """
    return ((end, entry) for end, _, entry in _read(path))


def _read(path: Path) -> Iterator[tuple[int, object, Entry]]:
    """Each whole line in the newest format, after where it ends in bytes, and the format it was written in."""
    end = 0
    found: object = UNNUMBERED
    try:
        with open_regular(path) as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                found, entry = _upgraded(parse_json_object(line), found, path)
                yield end, found, entry
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def downsampled_metrics(path: Path, num_lines: int | None = None) -> list[Entry]:
    """Enough lines to draw curves from, all of them where they are few; validations and rollbacks are all there.

    Args:
        num_lines: how many there are, if that is known.
    Raises:
        RunError: where one cannot be read.
    """
    try:
        with open_regular(path) as file:
            if num_lines is None:
                num_lines = sum(1 for _ in file)
                file.seek(0)
            stride = max(1, num_lines // MAX_CURVE_POINTS)
            found: object = UNNUMBERED
            entries: list[Entry] = []
            for number, line in enumerate(file):
                if line.endswith(b"\n") and (number % stride == 0 or b'"loss"' not in line):
                    found, entry = _upgraded(parse_json_object(line), found, path)
                    entries += [entry] if entry else []
            return entries
    except (OSError, ValueError) as error:
        raise RunError(f"{str(path)!r} cannot be read: {error}") from error


def _upgraded(entry: dict[str, object], found: object, path: Path) -> tuple[object, Entry]:
    """The format that a line names, else that of the line before it, `found`; and the line in the newest format."""
    found = entry.pop(KEY, found)
    if not entry:  # a line that names the format, for those after it
        METRICS_FORMAT.check(found, repr(str(path)))
        return found, {}
    upgraded = METRICS_FORMAT.upgraded({KEY: found, **entry}, repr(str(path)))
    return found, {name: value for name, value in upgraded.items() if name != KEY}


def length_up_to(path: Path, num_lines: int, step: int) -> tuple[int, int, object]:
    """Bytes and lines of metrics.jsonl that belong to a training as it stood after ``step`` steps and ``num_lines``;
    and the format of the last of them.

    The losses of the last steps may have arrived later than that: their lines follow directly.
    """
    length = count = 0
    last: object = UNNUMBERED
    for end, found, entry in _read(path):
        if count >= num_lines and ("loss" not in entry or _whole(entry.get("step")) > step):
            break
        length, count, last = end, count + 1, found
    return length, count, last


def step_plans_taken(entries: Iterable[Entry], path: Path) -> list[StepPlan]:
    """The decisions of the steps that the final model is made of: those that a rollback undid are left out.

    Raises RunError where they are not whole.
    """
    step_plans: list[StepPlan] = []
    for entry in entries:
        step = _whole(entry.get("step"))
        if entry.get("rolled_back"):
            if not 0 <= step <= len(step_plans):
                raise RunError(
                    f"metrics.jsonl of {str(path)!r} is damaged: a rollback goes to a step that is not there"
                )
            del step_plans[step:]
        elif "loss" in entry:
            if step != len(step_plans) + 1:
                raise RunError(f"metrics.jsonl of {str(path)!r} is damaged: step {len(step_plans) + 1} is missing")
            step_plans.append(_decision(entry, path))
    if not step_plans or step_plans[-1].progress != 1.0:
        raise RunError(f"run {str(path)!r} did not come to the end of its schedule: there is nothing to replay")
    return step_plans


def _decision(entry: Entry, path: Path) -> StepPlan:
    match entry:
        case {"progress": float(progress), "lr": float(lr), "momentum": float(momentum), "micro_batch": int(part)}:
            if 0 <= progress <= 1 and 0 <= lr < inf and 0 < momentum < 1 and part > 0 and part is not True:
                return StepPlan(progress, lr, momentum, part)
    raise RunError(f"metrics.jsonl of {str(path)!r} is damaged: a step lacks its decisions")


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else -1
