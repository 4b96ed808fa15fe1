"""What of the machine this process may use: processors and memory, less what a container or taskset keeps from it.

Linux tells it in files. Every function takes the root of the file system they lie under, so that tests can make one
up; elsewhere, or where they are missing or hold nonsense, only what the operating system says otherwise counts.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# cgroup v1 writes the largest whole number of pages for "no limit". No machine has an exabyte.
_NO_LIMIT_BYTES = 1 << 60


def available_threads(root: Path = Path("/")) -> int:
    """How many threads can run at once: the least of the machine's cores, this process's affinity and its CPU quota.

    A quota of 1.5 processors gives 1 thread: two would use it up after three quarters of each period and then both be
    stopped until the next, so that times measured in between would hold for no step. Below one processor it is 1.

    Args:
        root: where ``proc`` and ``sys`` are found.
    """
    threads = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        threads = min(threads, len(os.sched_getaffinity(0)))
    quotas = [quota for folder in _control_groups(root, "cpu") if (quota := _whole_processors(folder)) is not None]
    return max(1, min([threads, *quotas]))


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes this process can still take without swapping, None where nothing tells.

    The least of what the machine has left and what each memory limit above the process leaves. Cached files count as
    free in both, as the kernel drops them when memory is short; swap does not, as nothing meets a deadline from there.

    Args:
        root: where ``proc`` and ``sys`` are found.
    """
    rooms = [room for folder in _control_groups(root, "memory") if (room := _room(folder)) is not None]
    machine = _fields(root / "proc/meminfo").get("MemAvailable:")
    if machine is not None:
        rooms.append(machine * 1024)
    return min(rooms, default=None)


def is_torchrun() -> bool:
    """Whether ``torchrun`` started this process, as one of a group that trains together."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_worker_rank() -> bool:
    """Whether this process is one of a group and another leads it."""
    return is_torchrun() and os.environ["RANK"] != "0"


def local_world_size() -> int:
    """How many processes ``torchrun`` started on this host; 1 where it did not."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_torchrun() else 1


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups this process is in and of all those above, in cgroup v2, v1 and a mixture of both.

    In a container the process's own path often leads to nothing, as what is mounted is its group already: then the
    mount's root is what remains of the path.
    """
    mounts = root / "sys/fs/cgroup"
    yield from (mounts, mounts / "unified", mounts / controller)
    for line in _text(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        own = PurePosixPath(path.strip("/"))
        if ".." not in own.parts:
            for mount in (mounts / controller, mounts / controllers) if controllers else (mounts, mounts / "unified"):
                yield from (mount / group for group in (own, *own.parents))


def _whole_processors(folder: Path) -> int | None:
    """The CPU quota of one group in whole processors, None where it has none."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    quota_us, period_us = _number(quota), _number(period)
    return quota_us // period_us if quota_us and period_us else None


def _room(folder: Path) -> int | None:
    """What the memory limit of one group leaves, in bytes; None where it has none."""
    statistics = _fields(folder / "memory.stat")
    limit, used = _number(_text(folder / "memory.max")), _number(_text(folder / "memory.current"))
    cached = [statistics.get(name, 0) for name in ("inactive_file", "active_file")]
    if limit is None:
        limit = _number(_text(folder / "memory.limit_in_bytes"))
        used = _number(_text(folder / "memory.usage_in_bytes"))
        cached = [statistics.get(name, 0) for name in ("total_inactive_file", "total_active_file")]
    if limit is None or limit >= _NO_LIMIT_BYTES:
        return None
    return max(0, limit - max(0, (used or 0) - sum(cached)))


def _fields(file: Path) -> dict[str, int]:
    """The lines "name number ..." of a file."""
    words = [line.split() for line in _text(file).splitlines()]
    return {line[0]: number for line in words if len(line) > 1 and (number := _number(line[1])) is not None}


def _number(text: str) -> int | None:
    """A whole number from 0; None for "max", "-1" and nonsense."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # a path made of nonsense may hold a zero byte
        return ""
