"""Heartbeats: each rank increments a counter in the launcher's store, so that other ranks notice when it dies."""

import os
import signal
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import sleep

import msgspec
from torch.distributed.distributed_c10d import PrefixStore, Store

from timebox.clock import now, process_start
from timebox.distributed.messages import MessageChannel
from timebox.errors import NO_ANSWER, UsageError, one_line

# Interval of the heartbeat. A rank without one for the timeout, while another rank checks, has failed.
HEARTBEAT_SECONDS, HEARTBEAT_TIMEOUT_SECONDS = 0.3, 1.5
# Longest reason that a rank gives for leaving.
MAX_REASON_CHARACTERS = 2000
# Largest difference of start times at which a process id still belongs to the same process.
SAME_PROCESS_SECONDS = 0.05


@dataclass(frozen=True)
class RankInfo:
    """The process of one rank.

    Attributes:
        host: name of its host.
        pid: process id there.
        started_at: start time in seconds since the boot of that host.
        device: name of its GPU, or ``cpu``.
        threads: number of torch's CPU threads.
    """

    rank: int
    host: str
    pid: int
    started_at: float
    device: str
    threads: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


class Heartbeat:
    """Sends the heartbeat of this rank from a background thread, and checks those of the others.

    The thread runs while the rank computes or waits. Heartbeats end when a process is killed, stopped or cut off.

    Args:
        store: a connection to the launcher's store that nothing else uses.
        size: number of ranks.
        attempt: number of restarts by the launcher, 0 or more. Recorded failures are kept for the next attempt.
        key: of the run, which signs the reasons of ranks that leave.
    """

    def __init__(self, store: Store, rank: int, size: int, attempt: int = 0, key: bytes = b"") -> None:
        self._failures, self._attempt = PrefixStore("failures", store), attempt
        self._store, self._rank, self._size = PrefixStore(str(attempt), store), rank, size
        self._channel = MessageChannel(self._store, f"heartbeat/{attempt}", key)
        self._has_ended = Event()
        Thread(target=self._beat, name="timebox-heartbeat", daemon=True).start()

    def _beat(self) -> None:
        with suppress(RuntimeError):
            while not self._has_ended.wait(HEARTBEAT_SECONDS):
                self._store.add(f"beat/{self._rank}", 1)

    def leave(self, reason: str = "") -> None:
        """End the heartbeat and send the other ranks the reason; empty at the regular end of the training."""
        self._has_ended.set()
        _call_timed(lambda: self._channel.send(f"left/{self._rank}", one_line(reason)[:MAX_REASON_CHARACTERS]))

    def record_failures(self, lines: Sequence[str]) -> None:
        """Store a line per failed rank for the processes of the next attempt."""
        text = msgspec.json.encode(list(lines)).decode()
        _call_timed(lambda: self._failures.set(str(self._attempt), text))

    def failures_before_restart(self) -> tuple[str, ...]:
        """The lines recorded during the previous attempt, for the report.

        They are not signed, as each attempt has a key of its own. Lines that are no text count as none.
        """
        before = str(self._attempt - 1)
        lines: list[str] = []
        if self._failures.check([before]):
            with suppress(ValueError, RecursionError):
                lines = msgspec.json.decode(self._failures.get(before), type=list[str])
        return tuple(one_line(line)[:MAX_REASON_CHARACTERS] for line in lines[: self._size])

    def failed_ranks(self, ranks: Iterable[RankInfo] = ()) -> dict[int, str]:
        """The other ranks that have failed, each with the reason it gave or ``NO_ANSWER``. Takes up to two seconds.

        Args:
            ranks: those known. Those of this host whose process has ended are found at once, without waiting for a
                heartbeat.
        """
        reasons: dict[int, str] = {}
        known = {rank.rank: rank for rank in ranks}
        # Where its host is gone, the store may never answer.
        checking = Thread(target=self._check_ranks, args=(known, reasons), daemon=True)
        checking.start()
        checking.join(HEARTBEAT_TIMEOUT_SECONDS + 2 * HEARTBEAT_SECONDS)
        found = dict(reasons)
        others = (rank for rank in range(self._size) if rank != self._rank)
        return {rank: reason for rank in others if (reason := found.get(rank, NO_ANSWER))}

    def _check_ranks(self, known: Mapping[int, RankInfo], reasons: dict[int, str]) -> None:
        """Fill in, for each other rank that answers, the reason it left for; empty where it is running."""
        until = now() + HEARTBEAT_TIMEOUT_SECONDS
        with suppress(RuntimeError):
            before = [self._store.add(f"beat/{rank}", 0) for rank in range(self._size)]
            while now() < until and len(reasons) < self._size - 1:
                for rank in set(range(self._size)) - {self._rank, *reasons}:
                    is_dead = rank in known and _is_dead(known[rank])  # asked first: a rank leaves before it ends
                    if (reason := self._reason_of(rank)) is not None:
                        reasons[rank] = reason
                    elif is_dead:
                        reasons[rank] = NO_ANSWER
                    elif self._store.add(f"beat/{rank}", 0) > before[rank]:
                        reasons[rank] = ""
                sleep(HEARTBEAT_SECONDS / 10)

    def _reason_of(self, rank: int) -> str | None:
        """The reason that a rank left for; None where it has not left. One that it did not sign does not count."""
        if self._channel.is_sent(f"left/{rank}"):
            with suppress(UsageError):
                reason: str = self._channel.receive(f"left/{rank}", str)
                return reason
        return None


def _call_timed(write: Callable[[], None]) -> None:
    """Write to the store, waiting for a limited time: where its host is gone, the store may never answer."""

    def call() -> None:
        with suppress(RuntimeError):
            write()

    writing = Thread(target=call, daemon=True)
    writing.start()
    writing.join(HEARTBEAT_TIMEOUT_SECONDS)


def kill_stopped_ranks(ranks: Iterable[RankInfo]) -> None:
    """Kill the processes of this host that a signal has stopped: their launcher would wait half a minute for them."""
    for rank in ranks:
        is_same_process = abs(process_start(rank.pid) - rank.started_at) < SAME_PROCESS_SECONDS
        if rank.host == socket.gethostname() and is_same_process and _state(rank.pid) == "T":
            with suppress(OSError):
                os.kill(rank.pid, signal.SIGKILL)


def _is_dead(rank: RankInfo) -> bool:
    """Whether a process is known to have ended: one of this host that is gone, or that its parent has yet to notice."""
    if rank.host != socket.gethostname():
        return False
    state = _state(rank.pid)
    return state in ("Z", "X") or (state is None and _state(os.getpid()) is not None)


def _state(pid: int) -> str | None:
    """State of a process of this host, a letter as in proc(5); None where there is none, or the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return None
