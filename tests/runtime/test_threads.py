"""Threads of torch: limited to the container, tuned to the work, and restored afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from timebox.runtime.threads import cap_threads, limit_threads_to_container, tune_num_threads


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch uses four threads, on a machine with eight cores."""
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
def test_threads_are_limited_to_the_container_and_restored(tmp_path: Path, processors: float, threads: int) -> None:
    with limit_threads_to_container(container(tmp_path, processors)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_threads_are_restored_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), limit_threads_to_container(container(tmp_path, 2)):
        _ = 1 / 0
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_nested_limits_change_nothing(tmp_path: Path) -> None:
    root = container(tmp_path, 2)
    with limit_threads_to_container(root), limit_threads_to_container(root):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
def test_omp_num_threads_has_priority_over_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with limit_threads_to_container(container(tmp_path, 2)):
        assert torch.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity to set")
def test_a_process_with_affinity_to_one_processor_uses_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Returns ``seconds[threads]``; after ``num_first`` calls ``later[threads]``."""

    def __init__(self, seconds: dict[int, float], later: dict[int, float] | None = None, num_first: int = 0) -> None:
        self.seconds, self.later, self.num_first = seconds, later or {}, num_first
        self.threads_measured: list[int] = []

    def __call__(self) -> float:
        threads = torch.get_num_threads()
        self.threads_measured.append(threads)
        return (self.later if self.later and len(self.threads_measured) > self.num_first else self.seconds)[threads]


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("seconds", "threads", "threads_measured"),
    [
        ({4: 1.0, 2: 1.6}, 4, [4, 2]),
        ({4: 1.0, 2: 0.9}, 4, [4, 2]),
        ({4: 1.0, 2: 0.5, 1: 0.6}, 2, [4, 2, 1, 4, 2, 4, 2]),
        ({4: 1.0, 2: 0.5, 1: 0.2}, 1, [4, 2, 1, 4, 1, 4, 1]),
    ],
)
def test_threads_are_halved_while_the_work_becomes_faster(
    seconds: dict[int, float], threads: int, threads_measured: list[int]
) -> None:
    work = Work(seconds)
    reasons = tune_num_threads(work(), work)
    assert (torch.get_num_threads(), work.threads_measured) == (threads, threads_measured)
    times = 1.0 / seconds[threads]
    assert reasons == ([f"{threads} of 4 threads: {times:.1f}x as fast as all of them"] if threads < 4 else [])


@pytest.mark.usefixtures("four_threads")
def test_other_load_during_one_measurement_lowers_nothing() -> None:
    work = Work({4: 5.0, 2: 1.6, 1: 3.0}, later={4: 1.0}, num_first=3)
    assert tune_num_threads(work(), work) == []
    assert torch.get_num_threads() == 4
    assert work.threads_measured == [4, 2, 1, 4]


@pytest.mark.usefixtures("four_threads")
def test_omp_num_threads_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    work = Work({4: 1.0, 2: 0.1, 1: 0.1})
    assert tune_num_threads(work(), work) == []
    assert (torch.get_num_threads(), work.threads_measured) == (4, [4])


@pytest.mark.usefixtures("four_threads")
def test_a_cap_inside_the_limit_is_undone(tmp_path: Path) -> None:
    with limit_threads_to_container(container(tmp_path, 4)):
        cap_threads(1)
        assert torch.get_num_threads() == 1
        cap_threads(3)
        assert torch.get_num_threads() == 1, "only ever lowered"
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("processes", "omp_num_threads", "threads"),
    [(2, "1", 4), (4, "1", 2), (3, "1", 2), (16, "1", 1), (1, "1", 4), (2, "3", 4)],
)
def test_processes_of_one_host_share_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, omp_num_threads: str, threads: int
) -> None:
    """torchrun sets OMP_NUM_THREADS=1 where it starts several processes; another number is the user's."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setenv("OMP_NUM_THREADS", omp_num_threads)
    with limit_threads_to_container(container(tmp_path, 8)):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 4
