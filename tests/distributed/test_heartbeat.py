"""Who of a group is still there."""

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest
from torch.distributed import HashStore, PrefixStore

from timebox.clock import process_start
from timebox.distributed import heartbeat as roll_call
from timebox.distributed.heartbeat import HEARTBEAT_SECONDS, Heartbeat, RankInfo, kill_stopped_ranks
from timebox.errors import NO_ANSWER


def roll_calls(size: int) -> list[Heartbeat]:
    store = HashStore()
    return [Heartbeat(PrefixStore("test", store), rank, size) for rank in range(size)]


def wait_until_silent(other: Heartbeat) -> None:
    """Until the last sign of life of a process that has ended is given."""
    name, count = f"beat/{other._rank}", -1
    while (now := other._store.add(name, 0)) != count:
        count = now
        time.sleep(2 * HEARTBEAT_SECONDS)


def test_those_who_are_there_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_call, "HEARTBEAT_TIMEOUT_SECONDS", 300.0)
    first, *_ = roll_calls(3)
    assert first.failed_ranks() == {}


def test_those_who_are_silent_are_lost_and_those_who_leave_say_why() -> None:
    first, second, third, fourth = roll_calls(4)
    second._has_ended.set()  # as if killed
    third.leave("memory ran out")
    fourth.leave()
    wait_until_silent(second)
    assert first.failed_ranks() == {1: NO_ANSWER, 2: "memory ran out"}


def test_word_is_left_for_the_processes_that_are_started_again() -> None:
    store = HashStore()
    first, second, third = (Heartbeat(store, 0, 2, attempt) for attempt in range(3))
    assert first.failures_before_restart() == second.failures_before_restart() == ()
    first.note(["rank 1 on here: killed", "rank 2 on here: killed too"])
    assert second.failures_before_restart() == ("rank 1 on here: killed", "rank 2 on here: killed too")
    assert third.failures_before_restart() == ()


class Unreachable(HashStore):  # type: ignore[misc]
    """A store whose host is gone."""

    def add(self, key: str, value: int) -> int:
        Event().wait()
        raise RuntimeError("unreachable")


def test_where_the_store_is_gone_all_others_are() -> None:
    """It never answers, but this does."""
    assert Heartbeat(Unreachable(), 1, 3).failed_ranks() == {0: NO_ANSWER, 2: NO_ANSWER}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_only_a_process_that_a_signal_stopped_is_ended() -> None:
    sleeping = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    stopped, busy, another = sleeping
    try:
        for process in (stopped, another):
            process.send_signal(signal.SIGSTOP)
            while not roll_call._is_stopped(process.pid):
                time.sleep(0.01)
        host = os.uname().nodename
        members = [RankInfo(rank, host, one.pid, process_start(one.pid), "cpu", 1) for rank, one in enumerate(sleeping)]
        elsewhere = RankInfo(3, "elsewhere", another.pid, process_start(another.pid), "cpu", 1)
        earlier = RankInfo(4, host, another.pid, process_start(another.pid) - 100, "cpu", 1)
        kill_stopped_ranks([*members[:2], elsewhere, earlier])
        assert stopped.wait() == -signal.SIGKILL
        assert busy.poll() is None
        assert another.poll() is None
    finally:
        for process in sleeping:
            process.kill()
            process.wait()
