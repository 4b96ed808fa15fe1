"""What a run directory says of the processes that train it together: who they are, when they began, who was lost."""

import glob
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from timebox.clock import now, process_start
from timebox.distributed.heartbeat import RankInfo
from timebox.errors import RunError
from timebox.file_versions import RANKS_FORMAT, SUMMARY_FORMAT
from timebox.files import parse_json_object, read_regular, write_whole
from timebox.run.files import RANKS, SUMMARY, read_json, to_json

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class RanksRecord:
    """group.json.

    Attributes:
        launcher: the ``torchrun`` that started the leader; a group that it starts again goes on with the same run.
        started_at: when the first process of the first group started, in seconds since 1970.
        lost: a line for each process that was lost, in order.
    """

    launcher: str
    started_at: float
    members: tuple[Mapping[str, object], ...]
    lost: tuple[str, ...] = ()

    def save(self, run: Path) -> None:
        """Write it into a run directory. Raises OSError."""
        write_whole(run / RANKS, to_json(RANKS_FORMAT.numbered(asdict(self))))

    def with_lost(self, lines: Sequence[str]) -> "RanksRecord":
        """The record of a group that lost some more."""
        return replace(self, lost=(*self.lost, *lines))


def read_ranks_record(run: Path) -> RanksRecord | None:
    """The record in a run directory; None where there is none that can be read.

    Raises RunError where it is of a newer version.
    """
    with suppress(OSError, ValueError):
        values = parse_json_object(read_regular(run / RANKS, _MAX_BYTES))
        match RANKS_FORMAT.upgraded(values, repr(str(run / RANKS))):
            case {
                "launcher": str(launcher),
                "started_at": int() | float() as started_at,
                "members": list(members),
                "lost": list(lost),
            }:
                known = tuple(member for member in members if isinstance(member, dict))
                return RanksRecord(launcher, float(started_at), known, tuple(str(line) for line in lost))
    return None


def new_ranks_record(members: Sequence[RankInfo], elapsed_seconds: float) -> RanksRecord:
    """The record of a group whose clock has run for so many seconds."""
    return RanksRecord(launcher_id(), time.time() - elapsed_seconds, tuple(asdict(member) for member in members))


def launcher_id() -> str:
    """Names the ``torchrun`` that started this process: its host, its number there, and when it was started."""
    return f"{socket.gethostname()}:{os.getppid()}:{process_start(os.getppid()):.2f}"


def restarted_run(out: Path | None) -> Path | None:
    """The run that this process's launcher had begun before it had to start its processes again, if it had.

    Args:
        out: the run directory asked for; None for one of those in ``runs/``.
    """
    if out:
        candidates = [out, *out.parent.glob(f".{glob.escape(out.name)}.new-*")]
    else:
        candidates = sorted(Path("runs").glob("*/"), reverse=True)
    own = launcher_id()
    for run in candidates:
        with suppress(RunError):  # another version's, and so none that this launcher began
            if (record := read_ranks_record(run)) and record.launcher == own:
                return run
    return None


def seconds_since_launch() -> float:
    """How long this process's launcher has been running."""
    return now() - process_start(os.getppid())


def record_rank_failures(run: Path, lines: Sequence[str]) -> None:
    """Say in a run directory, where it can be seen from here, who was lost; a run that is finished stays as it is."""
    with suppress(OSError, RunError):
        record = read_ranks_record(run)
        summary = read_json(run / SUMMARY, SUMMARY_FORMAT) if (run / SUMMARY).exists() else {"stopped": True}
        if record and lines and summary.get("stopped"):
            record = record.with_lost(lines)
            record.save(run)
            write_whole(run / SUMMARY, to_json(SUMMARY_FORMAT.numbered({**summary, "lost_ranks": list(record.lost)})))
