"""Freed memory stays with the process inside, and goes back to the system afterwards."""

import os
import resource
import subprocess
import sys

import pytest

from timebox.runtime import allocator
from timebox.runtime.allocator import retain_freed_memory

needs_glibc = pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")

# Page faults of allocating and touching 64 MB ten times over, and the memory held after that, in pages.
FAULTS = """
import resource, torch
from timebox.runtime.allocator import retain_freed_memory

def allocate(times):
    for _ in range(times):
        torch.ones(16_000_000)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    allocate(10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1])

torch.set_num_threads(1)
outside, before = faults(), held()
with retain_freed_memory():
    # The aligned blocks that torch asks for fit into those given back once a few of them lie side by side.
    allocate(20)
    inside, kept = faults(), held()
print(outside, inside, kept - before, held() - before)
"""


def measured(**environment: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, env={**_clean(), **environment}
    )
    return [int(word) for word in done.stdout.split()]


def _clean() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "THP_"))}


@needs_glibc
@pytest.mark.integration
def test_the_kernel_clears_no_page_twice_inside_and_has_them_back_afterwards() -> None:
    outside, inside, kept, afterwards = measured()
    pages = 64_000_000 // resource.getpagesize()
    assert outside > 0.5 * 10 * pages
    assert inside < 0.05 * outside
    assert kept > 0.5 * pages
    assert afterwards < 0.1 * pages


@needs_glibc
@pytest.mark.integration
def test_what_the_user_has_set_up_stays() -> None:
    outside, inside, _, _ = measured(MALLOC_TRIM_THRESHOLD_="100000")
    assert inside > 0.5 * outside


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_glibc", lambda: None)
    with retain_freed_memory():
        pass


def test_it_is_undone_when_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self) -> None:
            self.set: dict[int, int] = {}
            self.trimmed = 0

        def mallopt(self, option: int, value: int) -> int:
            self.set[option] = value
            return 1

        def malloc_trim(self, pad: int) -> int:
            self.trimmed += 1
            return 1

    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)
    for name in allocator._USER_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KeyError), retain_freed_memory():
        assert library.set == allocator._RETAIN
        raise KeyError
    assert (library.set, library.trimmed) == (allocator._DEFAULTS, 1)
