"""Threads that read: what happens where the machine allows no more of them."""

import threading

import pytest

from timebox.data.reading import threads
from timebox.data.reading.threads import DaemonPool
from timebox.errors import DataError


def allow(monkeypatch: pytest.MonkeyPatch, num_threads: int) -> None:
    """Let only so many threads be started, of the eight that a pool asks for."""
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(started) == num_threads:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threads, "available_threads", lambda: 8)
    monkeypatch.setattr(threading.Thread, "start", limited)


def test_fewer_threads_than_asked_for_read_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 2)
    done: list[int] = []
    assert DaemonPool().run(done.append, [range(5), range(5, 9)], lambda num_done: True) == 9
    assert sorted(done) == list(range(9))


def test_without_any_thread_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 0)
    with pytest.raises(DataError, match="no thread can be started to read the images with: memory, or the number of"):
        DaemonPool().run(print, [range(5)], lambda num_done: True)
