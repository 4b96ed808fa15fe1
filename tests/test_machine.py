"""Available threads and memory, read from fake cgroup and proc files."""

import os
from pathlib import Path

import pytest

from timebox import machine
from timebox.errors import RunError
from timebox.machine import available_memory, available_threads, check_memory

MIB, GIB = 1 << 20, 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def cgroup(name: str, content: str) -> tuple[str, str]:
    return f"sys/fs/cgroup/{name}", content


def own_groups(*lines: str) -> tuple[str, str]:
    return "proc/self/cgroup", "".join(f"{line}\n" for line in lines)


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)


@pytest.mark.usefixtures("sixteen_cores")
@pytest.mark.parametrize(
    ("files", "threads"),
    [
        pytest.param([], 12, id="no files: the affinity"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "max 100000\n")], 12, id="no quota"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "400000 100000\n")], 4, id="a container's own root"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "150000 100000\n")], 1, id="1.5 processors"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "20000 100000\n")], 1, id="0.2 processors"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "6400000 100000\n")], 12, id="a quota above the affinity"),
        pytest.param([own_groups("0::/a/b"), cgroup("a/b/cpu.max", "300000 100000")], 3, id="the process's own group"),
        pytest.param(
            [own_groups("0::/a/b"), cgroup("a/b/cpu.max", "800000 100000"), cgroup("a/cpu.max", "200000 100000")],
            2,
            id="a group above with less",
        ),
        pytest.param(
            [own_groups("0::/a/b"), cgroup("a/b/cpu.max", "max 100000"), cgroup("a/cpu.max", "500000 50000")],
            10,
            id="a group above alone, another period",
        ),
        pytest.param(
            [own_groups("0::/host/scope"), cgroup("cpu.max", "500000 100000")], 5, id="a path that cannot be seen"
        ),
        pytest.param([own_groups("0::/../other"), cgroup("cpu.max", "500000 100000")], 5, id="a path outside"),
        pytest.param([cgroup("cpu.max", "500000 100000")], 5, id="no list of groups"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "many\n")], 12, id="nonsense"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "5 0\n")], 12, id="a period of nothing"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "0 100000\n")], 12, id="a quota of nothing"),
        pytest.param([own_groups("no groups", "\0:\0:/\0", "0::/a")], 12, id="a nonsensical list"),
        pytest.param([own_groups("0::/"), cgroup("cpu.max", "")], 12, id="an empty file"),
        pytest.param(
            [
                own_groups("4:cpu,cpuacct:/docker/abc", "1:name=systemd:/x"),
                cgroup("cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "700000\n"),
                cgroup("cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n"),
            ],
            7,
            id="cgroup v1",
        ),
        pytest.param(
            [
                own_groups("4:cpuacct,cpu:/docker/abc", "0::/"),
                cgroup("cpu/cpu.cfs_quota_us", "300000\n"),
                cgroup("cpu/cpu.cfs_period_us", "100000\n"),
            ],
            3,
            id="cgroup v1, a path that cannot be seen",
        ),
        pytest.param(
            [
                own_groups("4:cpu:/"),
                cgroup("cpu/cpu.cfs_quota_us", "-1\n"),
                cgroup("cpu/cpu.cfs_period_us", "100000\n"),
            ],
            12,
            id="cgroup v1 without quota",
        ),
        pytest.param(
            [own_groups("4:cpu:/", "0::/a"), cgroup("unified/a/cpu.max", "200000 100000")], 2, id="v2 beside v1"
        ),
    ],
)
def test_threads_are_the_minimum_of_quota_affinity_and_cores(
    tmp_path: Path, files: list[tuple[str, str]], threads: int
) -> None:
    assert available_threads(tree(tmp_path, dict(files))) == threads


def test_without_affinity_the_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_threads(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(tmp_path) == 1


def test_this_machine_has_threads_and_memory() -> None:
    assert 1 <= available_threads() <= (os.cpu_count() or 1)
    if Path("/proc/meminfo").exists():
        room = available_memory()
        assert room is not None
        assert 0 < room < 1 << 50


MEMINFO = ("proc/meminfo", f"MemTotal: {64 * MIB} kB\nMemAvailable:   {32 * MIB} kB\nHugePages_Total:  0\n")  # 32 GiB


def group_v2(path: str, limit: str, used: int, inactive: int = 0, active: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup/{path}"
    return {
        f"{folder}memory.max": f"{limit}\n",
        f"{folder}memory.current": f"{used}\n",
        f"{folder}memory.stat": f"anon 1\nfile 2\ninactive_file {inactive}\nactive_file {active}\n",
    }


def process(space: int | None, data: int | None) -> list[tuple[str, str]]:
    """The limits of a process that uses 1 GiB of its address space, half of it for data."""
    limits = {"Max cpu time": None, "Max data size": data, "Max address space": space}
    lines = [f"{name:<26}{limit or 'unlimited':<21}unlimited            bytes" for name, limit in limits.items()]
    status = f"Name:\tpython\nVmPeak:\t 9 kB\nVmSize:\t {MIB} kB\nVmData:\t {MIB // 2} kB\n"
    return [("proc/self/limits", "\n".join(lines)), ("proc/self/status", status)]


@pytest.mark.parametrize(
    ("files", "room"),
    [
        pytest.param(dict([MEMINFO]), 32 * GIB, id="no limit at all"),
        pytest.param(dict([MEMINFO]) | group_v2("", "max", GIB), 32 * GIB, id="max"),
        pytest.param(dict([MEMINFO]) | group_v2("", str(8 * GIB), 3 * GIB), 5 * GIB, id="limit less use"),
        pytest.param(
            dict([MEMINFO]) | group_v2("", str(8 * GIB), 3 * GIB, inactive=GIB, active=MIB),
            6 * GIB + MIB,
            id="cached files count as free",
        ),
        pytest.param(dict([MEMINFO]) | group_v2("", str(GIB), 3 * GIB), 0, id="already above the limit"),
        pytest.param(dict([MEMINFO]) | group_v2("", str(64 * GIB), 3 * GIB), 32 * GIB, id="a limit above the machine"),
        pytest.param(
            dict([MEMINFO, own_groups("0::/a/b")])
            | group_v2("a/b/", str(9 * GIB), GIB)
            | group_v2("a/", str(10 * GIB), 8 * GIB),
            2 * GIB,
            id="a group above, nearly full",
        ),
        pytest.param(
            dict([MEMINFO, own_groups("0::/host/scope")]) | group_v2("", str(2 * GIB), GIB),
            GIB,
            id="a path that cannot be seen",
        ),
        pytest.param(dict([MEMINFO]) | group_v2("", "plenty", 0), 32 * GIB, id="nonsense"),
        pytest.param(dict([MEMINFO, cgroup("memory.max", str(GIB))]), GIB, id="use unknown"),
        pytest.param(dict([MEMINFO, *process(space=10 * GIB, data=None)]), 9 * GIB, id="ulimit -v"),
        pytest.param(dict([MEMINFO, *process(space=None, data=4 * GIB)]), 3 * GIB + GIB // 2, id="ulimit -d"),
        pytest.param(dict([MEMINFO, *process(space=GIB // 2, data=GIB)]), 0, id="already above ulimit -v"),
        pytest.param(dict([MEMINFO, *process(space=None, data=None)]), 32 * GIB, id="unlimited"),
        pytest.param(
            dict([MEMINFO, *process(space=6 * GIB, data=None)]) | group_v2("", str(8 * GIB), 6 * GIB),
            2 * GIB,
            id="a cgroup with less than ulimit -v",
        ),
        pytest.param({"proc/meminfo": "MemAvailable: lots\n"}, None, id="nothing known"),
        pytest.param({}, None, id="no files"),
        pytest.param(
            dict(
                [
                    MEMINFO,
                    own_groups("5:memory:/docker/abc"),
                    cgroup("memory/docker/abc/memory.limit_in_bytes", str(4 * GIB)),
                    cgroup("memory/docker/abc/memory.usage_in_bytes", str(3 * GIB)),
                    cgroup("memory/docker/abc/memory.stat", f"inactive_file 5\ntotal_inactive_file {GIB}\n"),
                    cgroup("memory/memory.limit_in_bytes", "9223372036854771712"),
                ]
            ),
            2 * GIB,
            id="cgroup v1",
        ),
        pytest.param(
            dict([own_groups("5:memory:/"), cgroup("memory/memory.limit_in_bytes", "9223372036854771712")]),
            None,
            id="cgroup v1 without limit",
        ),
    ],
)
def test_memory_is_the_minimum_of_the_machine_and_all_limits(
    tmp_path: Path, files: dict[str, str], room: int | None
) -> None:
    assert available_memory(tree(tmp_path, files)) == room


def test_a_refusal_names_the_file_and_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_memory", lambda: 3 * 10**9)
    check_memory(3 * 10**9, "'a'", "its arrays", RunError)
    with pytest.raises(RunError) as caught:
        check_memory(12_345_678_901, "'a'", "its arrays", RunError)
    words = "'a' needs about 12.3 GB of memory for its arrays, and 3.0 GB are available here"
    assert str(caught.value) == words
    monkeypatch.setattr(machine, "available_memory", lambda: None)
    check_memory(1 << 60, "'a'", "its arrays", RunError)


def test_reading_needs_neither_torch_nor_numpy() -> None:
    source = Path(machine.__file__).read_text(encoding="utf-8")
    assert not any(f"import {name}" in source for name in ("torch", "numpy"))
