"""Heartbeats: which ranks count as failed, and which stopped processes are killed."""

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest
from torch.distributed import HashStore, PrefixStore

from timebox.clock import process_start
from timebox.distributed import heartbeat as heartbeat_module
from timebox.distributed.heartbeat import HEARTBEAT_SECONDS, Heartbeat, RankInfo, kill_stopped_ranks
from timebox.errors import NO_ANSWER


def heartbeats(size: int) -> list[Heartbeat]:
    store = HashStore()
    return [Heartbeat(PrefixStore("test", store), rank, size) for rank in range(size)]


def wait_until_silent(other: Heartbeat) -> None:
    """Wait for the last heartbeat of a rank whose thread has been stopped."""
    name, count = f"beat/{other._rank}", -1
    while (now := other._store.add(name, 0)) != count:
        count = now
        time.sleep(2 * HEARTBEAT_SECONDS)


def test_running_ranks_have_not_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "HEARTBEAT_TIMEOUT_SECONDS", 300.0)
    first, *_ = heartbeats(3)
    assert first.failed_ranks() == {}


def test_silent_ranks_have_failed_and_leaving_ranks_give_a_reason() -> None:
    first, second, third, fourth = heartbeats(4)
    second._has_ended.set()  # as if killed
    third.leave("memory ran out")
    fourth.leave()
    wait_until_silent(second)
    assert first.failed_ranks() == {1: NO_ANSWER, 2: "memory ran out"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_rank_of_this_host_whose_process_has_ended_has_failed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "HEARTBEAT_TIMEOUT_SECONDS", 300.0)
    first, second, third, fourth = heartbeats(4)
    host, sleeping = os.uname().nodename, [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    ranks = [RankInfo(rank, host, one.pid, process_start(one.pid), "cpu", 1) for rank, one in enumerate(sleeping, 1)]
    try:
        for one in (sleeping[0], sleeping[2]):  # a zombie from now on
            one.kill()
        sleeping[2].wait()  # and one that is gone
        for rank in (second, fourth):
            rank._has_ended.set()
        assert first.failed_ranks(ranks) == {1: NO_ANSWER, 3: NO_ANSWER}
        third.leave("memory ran out")
        assert first.failed_ranks(ranks) == {1: NO_ANSWER, 2: "memory ran out", 3: NO_ANSWER}
    finally:
        for one in sleeping:
            one.kill()
            one.wait()


def test_failures_are_recorded_for_the_next_attempt_only() -> None:
    store = HashStore()
    first, second, third = (Heartbeat(store, 0, 2, attempt) for attempt in range(3))
    assert first.failures_before_restart() == second.failures_before_restart() == ()
    first.record_failures(["rank 1 on here: killed", "rank 2 on here: killed too"])
    assert second.failures_before_restart() == ("rank 1 on here: killed", "rank 2 on here: killed too")
    assert third.failures_before_restart() == ()


class Unreachable(HashStore):  # type: ignore[misc]
    """A store that never answers, as its host is gone."""

    def add(self, key: str, value: int) -> int:
        Event().wait()
        raise RuntimeError("unreachable")


def test_without_the_store_all_other_ranks_have_failed() -> None:
    """The check ends although the store never answers."""
    assert Heartbeat(Unreachable(), 1, 3).failed_ranks() == {0: NO_ANSWER, 2: NO_ANSWER}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_only_the_stopped_process_of_a_rank_is_killed() -> None:
    sleeping = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    stopped, busy, another = sleeping
    try:
        for process in (stopped, another):
            process.send_signal(signal.SIGSTOP)
            while heartbeat_module._state(process.pid) != "T":
                time.sleep(0.01)
        host = os.uname().nodename
        ranks = [RankInfo(rank, host, one.pid, process_start(one.pid), "cpu", 1) for rank, one in enumerate(sleeping)]
        elsewhere = RankInfo(3, "elsewhere", another.pid, process_start(another.pid), "cpu", 1)
        earlier = RankInfo(4, host, another.pid, process_start(another.pid) - 100, "cpu", 1)
        kill_stopped_ranks([*ranks[:2], elsewhere, earlier])
        assert stopped.wait() == -signal.SIGKILL
        assert busy.poll() is None
        assert another.poll() is None
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
