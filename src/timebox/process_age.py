"""The age of a process on Windows and macOS, which have no ``/proc``, asked of the system by ctypes.

Tests call both functions with stand-ins for the system's libraries.
"""

import ctypes
import sys
import time
from typing import Any

# Windows counts time in tenths of a microsecond since 1601.
_TICKS, _UNIX_EPOCH = 10_000_000, 11_644_473_600
_QUERY_LIMITED_INFORMATION = 0x1000
# proc_pidinfo of macOS fills a struct proc_bsdinfo; two 64-bit integers in it are seconds and microseconds since 1970.
_PROC_PIDTBSDINFO, _BSDINFO_BYTES, _START_OFFSET = 3, 136, 120


def process_age(pid: int) -> float | None:
    """Seconds since a process was started; None where the system does not tell, or this is another system."""
    system: str = sys.platform
    try:
        if system == "win32":
            started = windows_start(pid, getattr(ctypes, "windll").kernel32)  # noqa: B009  # mypy knows none elsewhere
        elif system == "darwin":
            started = macos_start(pid, ctypes.CDLL("/usr/lib/libproc.dylib"))
        else:
            return None
    except (OSError, AttributeError):
        return None
    return None if started is None else time.time() - started


def windows_start(pid: int, kernel32: Any) -> float | None:
    """Unix time at which a process was started, by GetProcessTimes."""
    kernel32.OpenProcess.restype = ctypes.c_void_p
    handle = kernel32.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not handle:
        return None
    times = [ctypes.c_uint64() for _ in range(4)]  # creation, exit, kernel, user
    try:
        succeeded = kernel32.GetProcessTimes(ctypes.c_void_p(handle), *map(ctypes.byref, times))
    finally:
        kernel32.CloseHandle(ctypes.c_void_p(handle))
    return times[0].value / _TICKS - _UNIX_EPOCH if succeeded else None


def macos_start(pid: int, libproc: Any) -> float | None:
    """Unix time at which a process was started, by proc_pidinfo."""
    info = ctypes.create_string_buffer(_BSDINFO_BYTES)
    size = libproc.proc_pidinfo(pid, _PROC_PIDTBSDINFO, ctypes.c_uint64(0), info, _BSDINFO_BYTES)
    if size != _BSDINFO_BYTES:
        return None
    seconds, microseconds = (
        int.from_bytes(info.raw[start : start + 8], sys.byteorder) for start in (_START_OFFSET, _START_OFFSET + 8)
    )
    return seconds + microseconds / 1e6
