"""Processors and memory available to this process, within the limits of containers and taskset; torchrun's variables.

Limits are read from Linux's cgroup and proc files; `root`, the directory of ``proc`` and ``sys``, is another in tests.
Missing or invalid files, as on other systems, are ignored.
"""

import os
import platform
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from timebox.errors import TimeboxError

# cgroup v1 writes a huge number of bytes for "no limit". No machine has an exabyte.
_NO_LIMIT_BYTES = 1 << 60
# Up to so many bytes are allocated without asking how many are available, which takes longer than reading them: 2 ms.
UNCHECKED_BYTES = 16 << 20
# Lines of proc's limits and status: of setrlimit, RLIMIT_AS and RLIMIT_DATA, and how much of each is used.
_PROCESS_LIMITS = {"Max address space": "VmSize:", "Max data size": "VmData:"}


def available_threads(root: Path = Path("/")) -> int:
    """Number of threads that can run at once: the minimum of cores, CPU affinity and CPU quota, 1 or more.

    A quota of 1.5 processors allows 1 thread: two threads would use up the quota after three quarters of each period,
    and then wait for the next, so that measured step times would be misleading.
    """
    threads = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        threads = min(threads, len(os.sched_getaffinity(0)))
    quotas = [quota for folder in _control_groups(root, "cpu") if (quota := _whole_processors(folder)) is not None]
    return max(1, min([threads, *quotas]))


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can allocate without swapping; None if unknown.

    The minimum of the machine's available memory, the rest of each cgroup's limit, and the rest of the limits of this
    process (``ulimit -v`` and ``ulimit -d``). Cached files count as available, because the kernel drops them when
    memory is short. Swap does not count: it is too slow to meet a deadline.
    """
    folders = _control_groups(root, "memory")
    available = [num_bytes for folder in folders if (num_bytes := _available_bytes(folder)) is not None]
    available += _left_of_process_limits(root)
    machine = _fields(root / "proc/meminfo").get("MemAvailable:")
    if machine is not None:
        available.append(machine * 1024)
    return min(available, default=None)


def memory_shortage(num_bytes: int, purpose: str, available: int | None = None) -> str | None:
    """Why `num_bytes` cannot be allocated without swapping, in words that follow the name of the file at fault; None
    where they can. Call it before the allocation.

    Args:
        purpose: of the memory: "its arrays".
        available: bytes of the memory that is meant; None for :func:`available_memory`, asked above 16 MB only.
    """
    if available is None and num_bytes > UNCHECKED_BYTES:
        available = available_memory()
    if available is None or num_bytes <= available:
        return None
    return (
        f"needs about {format_bytes(num_bytes)} of memory for {purpose}, and {format_bytes(available)} are available "
        "here"
    )


def check_memory(
    num_bytes: int, where: str, purpose: str, error: type[TimeboxError], available: int | None = None
) -> None:
    """Raise `error` for a :func:`memory_shortage` at `where`, a file or directory as messages name it."""
    if reason := memory_shortage(num_bytes, purpose, available):
        raise error(f"{where} {reason}")


def format_bytes(num_bytes: float) -> str:
    """A number of bytes in GB or MB: "1.5 GB"."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def processor_name(root: Path = Path("/")) -> str:
    """The processor's name with family and model, if known: the name alone that a virtual machine shows may stand for
    very different processors.

    Args:
        root: where ``proc`` is found.
    """
    name, family, model = (field_of(root / "proc/cpuinfo", field) for field in ("model name", "cpu family", "model"))
    if not name:
        return platform.processor() or platform.machine()
    return f"{name} (family {family}, model {model})" if family and model else name


def field_of(file: Path, name: str) -> str:
    """The first value of a field in a file of ``name : value`` lines; empty where there is none."""
    pairs = (line.partition(":") for line in _text(file).splitlines())
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")


def is_torchrun() -> bool:
    """Whether ``torchrun`` started this process as a member of a process group."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


def is_worker_rank() -> bool:
    """Whether this process belongs to a process group and is not its rank 0."""
    return is_torchrun() and os.environ["RANK"] != "0"


def local_world_size() -> int:
    """Number of processes that ``torchrun`` started on this host; 1 without ``torchrun``."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_torchrun() else 1


def is_one_host() -> bool:
    """Whether ``torchrun`` started all ranks on this host."""
    return local_world_size() == int(os.environ.get("WORLD_SIZE", "1"))


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's cgroup and all its ancestors, in cgroup v2, v1 and the hybrid of both.

    In a container the path of the cgroup often does not exist, because the container's own cgroup is mounted as the
    root: hence the root of each mount comes first.
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
    """The CPU quota of a cgroup in whole processors, rounded down; None for no quota."""
    quota, _, period = _text(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
    quota_us, period_us = _number(quota), _number(period)
    return quota_us // period_us if quota_us and period_us else None


def _available_bytes(folder: Path) -> int | None:
    """The rest of the memory limit of a cgroup in bytes; None for no limit."""
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


def _left_of_process_limits(root: Path) -> Iterator[int]:
    """The bytes left of the limits that are set for this process alone."""
    used = _fields(root / "proc/self/status")
    for line in _text(root / "proc/self/limits").splitlines():
        for name, use in _PROCESS_LIMITS.items():
            if line.startswith(name) and (limit := _number(line.removeprefix(name).split()[0])) is not None:
                yield max(0, limit - used.get(use, 0) * 1024)


def _fields(file: Path) -> dict[str, int]:
    """Parse the lines "name number ..." of a file."""
    words = [line.split() for line in _text(file).splitlines()]
    return {line[0]: number for line in words if len(line) > 1 and (number := _number(line[1])) is not None}


def _number(text: str) -> int | None:
    """Parse a non-negative integer; None for "max", "-1" and invalid texts."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return ""
