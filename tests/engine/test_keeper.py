"""Checkpoints in the background: how long they are waited for."""

import threading
import time

import pytest

from timebox.clock import Deadline
from timebox.engine.keeper import Keeper
from timebox.engine.state import Snapshot


def test_where_no_clock_is_read_a_write_in_progress_is_waited_for_without_end() -> None:
    released, written = threading.Event(), []

    def write(snapshot: Snapshot) -> None:
        released.wait(10)
        written.append(snapshot.step)

    keeper = Keeper(write, Deadline(None), lambda: float("inf"), print)
    keeper.keep(Snapshot(3, 0.5, {}, {}))
    threading.Timer(0.05, released.set).start()
    assert keeper.wait(float("inf"))
    assert written == [3]


def test_a_failure_waits_for_the_write_in_progress() -> None:
    written: list[int] = []

    def write(snapshot: Snapshot) -> None:
        time.sleep(0.1)
        written.append(snapshot.step)

    keeper = Keeper(write, Deadline(None), lambda: float("inf"), print)
    with pytest.raises(KeyboardInterrupt), keeper.settled_on_failure():
        keeper.keep(Snapshot(3, 0.5, {}, {}))
        raise KeyboardInterrupt
    assert written == [3]
