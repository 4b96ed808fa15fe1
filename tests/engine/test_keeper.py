"""Checkpoints in the background: how long they are waited for."""

import threading

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
