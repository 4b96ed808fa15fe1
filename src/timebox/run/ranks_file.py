"""group.json: the processes that train a run together under torchrun, when they started, and which of them failed."""

import glob
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec import Struct, structs

from timebox.clock import Deadline, now, process_start
from timebox.distributed.heartbeat import RankInfo
from timebox.distributed.process_group import ProcessGroup, TorchrunGroup
from timebox.errors import RunError, UsageError
from timebox.file_versions import RANKS_FORMAT, SUMMARY_FORMAT
from timebox.files import write_whole
from timebox.run.directories.locks import locked_run
from timebox.run.directories.output import resolve_link
from timebox.run.directories.replacement import place_of
from timebox.run.files import CONFIG, RANKS, SUMMARY, read_json, read_object, to_file, to_json
from timebox.run.json_values import from_values


class RanksRecord(Struct, frozen=True, kw_only=True):
    """group.json: the processes that train a run together.

    Attributes:
        launcher: the ``torchrun`` that started the main rank; ranks that it starts again go on with the same run.
        started_at: when the first process of the first start began, in seconds since 1970.
        ranks: the processes, in the order of their ranks.
        failures: a line for each process that was lost, in order.
    """

    launcher: str
    started_at: float
    ranks: tuple[RankInfo, ...]
    failures: tuple[str, ...] = ()

    @classmethod
    def new(cls, ranks: Sequence[RankInfo], elapsed_seconds: float) -> "RanksRecord":
        """The record of processes whose clock has run for ``elapsed_seconds``."""
        return cls(launcher=launcher_id(), started_at=time.time() - elapsed_seconds, ranks=tuple(ranks))

    def save(self, run: Path) -> None:
        """Write it into a run directory. Raises OSError."""
        write_whole(run / RANKS, to_file(self, RANKS_FORMAT))

    def with_failures(self, lines: Sequence[str]) -> "RanksRecord":
        """The record with a line more for each of some further failures."""
        return structs.replace(self, failures=(*self.failures, *lines))


def read_ranks_record(run: Path) -> RanksRecord | None:
    """The record in a run directory; None where there is none. Raises RunError for one that is damaged."""
    where = repr(str(run / RANKS))
    if (values := read_object(run / RANKS)) is None:
        return None
    return from_values(RANKS_FORMAT.upgraded(values, where), RanksRecord, where)


def launcher_id() -> str:
    """Identifies the ``torchrun`` that started this process: its host, its process number and when it started."""
    return f"{socket.gethostname()}:{os.getppid()}:{process_start(os.getppid()):.2f}"


def find_run_of_launcher(out: Path | None) -> Path | None:
    """The run that this process's launcher began before it had to start its processes again, if any: in ``out``, the
    directory that the user asked for, or in ``runs/`` for None."""
    if out:
        out = resolve_link(out)
        candidates = [out, *(path for path in out.parent.glob(f".{glob.escape(out.name)}.new-*") if place_of(path))]
    else:
        candidates = sorted(Path("runs").glob("*/"), reverse=True)
    own = launcher_id()
    for run in candidates:
        with suppress(RunError):  # damaged or of another version, and so not begun by this launcher
            if (record := read_ranks_record(run)) and record.launcher == own:
                return run
    return None


def record_rank_failures_of_dead(run: Path, lines: Sequence[str]) -> None:
    """Record rank failures in the run of a main rank that is dead, unless another process goes on with it already."""
    with suppress(OSError, RunError, UsageError), locked_run(run):
        record_rank_failures(run, lines)


def record_rank_failures(run: Path, lines: Sequence[str]) -> None:
    """Add rank failures to group.json and summary.json of a run that this process has locked, where it can write them.

    A finished run stays as it is. Keys of summary.json that this version does not know are kept.
    """
    with suppress(OSError, RunError):
        record = read_ranks_record(run)
        summary = read_json(run / SUMMARY, SUMMARY_FORMAT) if (run / SUMMARY).exists() else {"stopped": True}
        if record and lines and summary.get("stopped"):
            record = record.with_failures(lines)
            record.save(run)
            summary = {**summary, "rank_failures": list(record.failures)}
            write_whole(run / SUMMARY, to_json(SUMMARY_FORMAT.numbered(summary)))


@dataclass(frozen=True)
class RestartedRun:
    """The run that a group had begun when a rank failed and ``torchrun`` restarted the group."""

    path: Path
    record: RanksRecord

    @property
    def has_checkpoint(self) -> bool:
        """Whether it can be resumed; else it is trained from the start."""
        return (self.path / CONFIG).is_file()


def find_restarted_run(group: ProcessGroup, out: Path | None, deadline: Deadline) -> RestartedRun | None:
    """The run to resume, where ``torchrun`` restarted the group; None where it did not, or no run was begun.

    Sets the clock back to the first start of the group: the one recorded in the run, else the start of ``torchrun``.
    """
    if not isinstance(group, TorchrunGroup) or group.num_restarts == 0:
        return None
    path = find_run_of_launcher(out)
    record = read_ranks_record(path) if path else None
    seconds = time.time() - record.started_at if record else now() - process_start(os.getppid())
    deadline.add_earlier_phases({"lost": max(seconds - deadline.elapsed(), 0.0)})
    if not path or not record:
        return None
    failures = group.failures_before_restart()
    if record.failures[-len(failures) :] != failures:  # a rank may fail just after the start of the run
        record = record.with_failures(failures)
    return RestartedRun(path, record)


def save_ranks_record(group: ProcessGroup, run: Path, deadline: Deadline, failures: tuple[str, ...] = ()) -> None:
    """Record in a run directory which ranks train it, and the earlier rank failures, a line each. Raises OSError."""
    if isinstance(group, TorchrunGroup):
        RanksRecord.new(group.ranks, deadline.elapsed()).with_failures(failures).save(run)
