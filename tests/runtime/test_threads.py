"""torch gets as many threads as the container has processors, and its host gets its own number back."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from timebox.runtime.threads import cap_threads, limit_threads_to_container, tune_num_threads


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host process whose torch uses four threads on a machine of eight cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def container(root: Path, processors: float) -> Path:
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/cpu.max").write_text(f"{processors * 100_000:.0f} 100000\n")
    return root


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(("processors", "threads"), [(1, 1), (1.5, 1), (2, 2), (3.9, 3), (4, 4), (6, 4)])
def test_threads_follow_the_container_and_come_back(tmp_path: Path, processors: float, threads: int) -> None:
    with limit_threads_to_container(container(tmp_path, processors)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_threads_come_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), limit_threads_to_container(container(tmp_path, 2)):
        _ = 1 / 0
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_one_inside_another_changes_nothing(tmp_path: Path) -> None:
    root = container(tmp_path, 2)
    with limit_threads_to_container(root), limit_threads_to_container(root):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_omp_num_threads_is_the_users_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with limit_threads_to_container(container(tmp_path, 2)):
        assert torch.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_a_process_held_to_one_processor_uses_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads, processors = torch.get_num_threads(), os.sched_getaffinity(0)
    torch.set_num_threads(2)
    os.sched_setaffinity(0, {min(processors)})
    try:
        with limit_threads_to_container():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        os.sched_setaffinity(0, processors)
        torch.set_num_threads(threads)


class Work:
    """Takes ``seconds[threads]``; from the call after ``calm_after`` on, ``later[threads]`` in their place."""

    def __init__(self, seconds: dict[int, float], later: dict[int, float] | None = None, calm_after: int = 0) -> None:
        self.seconds, self.later, self.calm_after = seconds, later or {}, calm_after
        self.asked: list[int] = []

    def __call__(self) -> float:
        threads = torch.get_num_threads()
        self.asked.append(threads)
        return (self.later if self.later and len(self.asked) > self.calm_after else self.seconds)[threads]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("seconds", "threads", "asked"),
    [
        ({4: 1.0, 2: 1.6}, 4, [4, 2]),
        ({4: 1.0, 2: 0.9}, 4, [4, 2]),
        ({4: 1.0, 2: 0.5, 1: 0.6}, 2, [4, 2, 1, 4]),
        ({4: 1.0, 2: 0.5, 1: 0.2}, 1, [4, 2, 1, 4]),
    ],
)
def test_threads_are_halved_while_that_makes_the_work_faster(
    seconds: dict[int, float], threads: int, asked: list[int]
) -> None:
    work = Work(seconds)
    reasons = tune_num_threads(work)
    assert (torch.get_num_threads(), work.asked) == (threads, asked)
    times = 1.0 / seconds[threads]
    assert reasons == ([f"{threads} of 4 threads: {times:.1f}x as fast as all of them"] if threads < 4 else [])


@pytest.mark.usefixtures("four_threads")
def test_a_busy_moment_takes_no_thread_away() -> None:
    work = Work({4: 5.0, 2: 1.6, 1: 3.0}, later={4: 1.0}, calm_after=3)
    assert tune_num_threads(work) == []
    assert torch.get_num_threads() == 4
    assert work.asked == [4, 2, 1, 4]


@pytest.mark.usefixtures("four_threads")
def test_threads_asked_for_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    work = Work({4: 1.0, 2: 0.1, 1: 0.1})
    assert tune_num_threads(work) == []
    assert (torch.get_num_threads(), work.asked) == (4, [])


@pytest.mark.usefixtures("four_threads")
def test_what_is_changed_inside_is_changed_back(tmp_path: Path) -> None:
    with limit_threads_to_container(container(tmp_path, 4)):
        cap_threads(1)
        assert torch.get_num_threads() == 1
        cap_threads(3)
        assert torch.get_num_threads() == 1, "only ever lowered"
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("processes", "asked", "threads"), [(2, "1", 4), (4, "1", 2), (3, "1", 2), (16, "1", 1), (1, "1", 4), (2, "3", 4)]
)
def test_processes_of_one_host_share_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, asked: str, threads: int
) -> None:
    """torchrun says OMP_NUM_THREADS=1 by itself where it starts several; another number is the user's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with limit_threads_to_container(container(tmp_path, 8)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4
