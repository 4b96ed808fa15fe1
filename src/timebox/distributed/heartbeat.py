"""Who of a group is still there: every process gives a sign of life to the launcher's store, whatever else it does."""

import json
import os
import signal
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import sleep

from torch.distributed.distributed_c10d import PrefixStore, Store

from timebox.clock import now, process_start
from timebox.errors import NO_ANSWER

# A sign of life every so many seconds. Who gives none for so long, while somebody listens, is gone.
HEARTBEAT_SECONDS, HEARTBEAT_TIMEOUT_SECONDS = 0.3, 1.5
# A process of that number is the one that was known if it started at that time.
SAME_PROCESS_SECONDS = 0.05


@dataclass(frozen=True)
class RankInfo:
    """One process of a group: where it runs, and since when, in seconds since that host was started."""

    rank: int
    host: str
    pid: int
    started_at: float
    device: str
    threads: int

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


class Heartbeat:
    """Gives signs of life, in a thread of its own, and listens for those of others.

    A process that waits for others, or computes, gives them as ever: only one that was killed, stands still or is cut
    off does not.

    Args:
        store: a connection to the launcher's store that nothing else uses.
        attempt: 0, and 1 more each time that the launcher starts its processes again: what is noted stays for those.
    """

    def __init__(self, store: Store, rank: int, size: int, attempt: int = 0) -> None:
        self._notes, self._attempt = PrefixStore("lost", store), attempt
        self._store, self._rank, self._size = PrefixStore(str(attempt), store), rank, size
        self._has_ended = Event()
        Thread(target=self._live, name="timebox-signs-of-life", daemon=True).start()

    def _live(self) -> None:
        with suppress(RuntimeError):
            while not self._has_ended.wait(HEARTBEAT_SECONDS):
                self._store.add(f"beat/{self._rank}", 1)

    def leave(self, reason: str = "") -> None:
        """Say that this process leaves, and why, if not because all do; wait a moment for the word to arrive."""
        self._has_ended.set()
        _say(self._store, f"left/{self._rank}", reason)

    def note(self, lines: Sequence[str]) -> None:
        """Leave word of who is lost to the processes that are started in place of these."""
        _say(self._notes, str(self._attempt), json.dumps(lines))

    def failures_before_restart(self) -> tuple[str, ...]:
        """What was noted before the processes were started again, the last time."""
        before = str(self._attempt - 1)
        return tuple(json.loads(self._notes.get(before))) if self._notes.check([before]) else ()

    def failed_ranks(self) -> dict[int, str]:
        """Which others are gone, by rank, and why, as far as they said. Takes up to two seconds."""
        found: dict[int, str] = {}
        # The store is gone with its host, and may then never answer.
        listening = Thread(target=self._listen, args=(found,), daemon=True)
        listening.start()
        listening.join(HEARTBEAT_TIMEOUT_SECONDS + 2 * HEARTBEAT_SECONDS)
        heard = dict(found)
        others = (rank for rank in range(self._size) if rank != self._rank)
        return {rank: reason for rank in others if (reason := heard.get(rank, NO_ANSWER))}

    def _listen(self, found: dict[int, str]) -> None:
        """Note of each other process the reason it left for, empty where it is well."""
        until = now() + HEARTBEAT_TIMEOUT_SECONDS
        with suppress(RuntimeError):
            before = [self._store.add(f"beat/{rank}", 0) for rank in range(self._size)]
            while now() < until and len(found) < self._size - 1:
                for rank in set(range(self._size)) - {self._rank, *found}:
                    if self._store.check([f"left/{rank}"]):
                        found[rank] = self._store.get(f"left/{rank}").decode()
                    elif self._store.add(f"beat/{rank}", 0) > before[rank]:
                        found[rank] = ""
                sleep(HEARTBEAT_SECONDS / 10)


def _say(store: Store, key: str, text: str) -> None:
    """Leave a text in a store, and wait a moment for it to arrive: one that is gone with its host may never answer."""

    def say() -> None:
        with suppress(RuntimeError):
            store.set(key, text)

    saying = Thread(target=say, daemon=True)
    saying.start()
    saying.join(HEARTBEAT_TIMEOUT_SECONDS)


def kill_stopped_ranks(members: Iterable[RankInfo]) -> None:
    """End those of this host that a signal has stopped: their launcher would wait half a minute for them."""
    for member in members:
        same_host = member.host == socket.gethostname()
        same_process = abs(process_start(member.pid) - member.started_at) < SAME_PROCESS_SECONDS
        if same_host and same_process and _is_stopped(member.pid):
            with suppress(OSError):
                os.kill(member.pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False
