"""The age of a process on systems without `/proc`, with stand-ins for their libraries."""

import ctypes
import sys
import time
from typing import Any

import pytest

from timebox import clock, process_age
from timebox.process_age import macos_start, windows_start

STARTED = 1_764_600_000.25


class Kernel32:
    """Windows: OpenProcess, GetProcessTimes and CloseHandle."""

    def __init__(self, handle: int = 7, succeeds: bool = True) -> None:
        self.closed: list[int | None] = []
        self.OpenProcess = lambda access, inherit, pid: handle
        self.OpenProcess.__dict__["restype"] = None
        self._succeeds = succeeds

    def GetProcessTimes(self, handle: Any, created: Any, *others: Any) -> bool:  # noqa: N802
        assert handle.value == 7
        assert len(others) == 3
        created._obj.value = round((STARTED + 11_644_473_600) * 10_000_000)
        return self._succeeds

    def CloseHandle(self, handle: Any) -> None:  # noqa: N802
        self.closed.append(handle.value)


class LibProc:
    """macOS: proc_pidinfo."""

    def __init__(self, size: int = 136) -> None:
        self._size = size

    def proc_pidinfo(self, pid: int, flavour: int, argument: Any, info: Any, size: int) -> int:
        assert (flavour, size) == (3, 136)
        info[120:128] = int(STARTED).to_bytes(8, sys.byteorder)
        info[128:136] = (250_000).to_bytes(8, sys.byteorder)
        return self._size


def test_windows_tells_when_a_process_was_started() -> None:
    system = Kernel32()
    assert windows_start(42, system) == STARTED
    assert system.closed == [7]
    assert windows_start(42, Kernel32(handle=0)) is None
    failing = Kernel32(succeeds=False)
    assert windows_start(42, failing) is None
    assert failing.closed == [7]


def test_macos_tells_when_a_process_was_started() -> None:
    assert macos_start(42, LibProc()) == STARTED
    assert macos_start(42, LibProc(size=0)) is None


def test_other_systems_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "sunos5")
    assert process_age.process_age(1) is None


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_a_system_without_its_library_does_not_tell(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert process_age.process_age(1) is None


def test_the_clock_begins_when_windows_started_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock.Path, "read_text", lambda path: (_ for _ in ()).throw(FileNotFoundError(path)))
    monkeypatch.setattr(sys, "platform", "win32")
    system = Kernel32()
    monkeypatch.setattr(ctypes, "windll", type("Libraries", (), {"kernel32": system}), raising=False)
    monkeypatch.setattr(time, "time", lambda: STARTED + 1.5)
    monkeypatch.setattr(clock, "_IMPORTED_AT", clock.now())
    assert clock.process_start() == pytest.approx(clock.now() - 1.5, abs=0.5)
